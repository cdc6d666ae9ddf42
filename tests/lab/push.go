package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// Push is a `migrate push --json` on a host.
type Push struct {
	Cmd    *exec.Cmd
	Result PushResult    // once it has ended
	ended  chan struct{} // closed then

	stderr bytes.Buffer
	err    error // what could not be read, once it has ended
	sent   atomic.Int64
	mu     sync.Mutex
	seen   map[string]chan struct{} // closed when the phase begins
}

// PushResult is the last line that it prints.
type PushResult struct {
	Event      string             `json:"event"`
	Phase      string             `json:"phase"`
	Outcome    string             `json:"outcome"`
	Mode       string             `json:"mode"`
	DowntimeMS float64            `json:"downtime_ms"`
	TotalMS    float64            `json:"total_ms"`
	JournalMS  float64            `json:"journal_ms"`
	BytesSent  uint64             `json:"bytes_sent"`
	Phases     map[string]float64 `json:"phases"` // ms
	Bytes      int64              `json:"bytes"`  // of the last progress
	Error      string             `json:"error"`
	Warnings   []string           `json:"warnings"`
	Rounds     []struct {
		Bytes  int64 `json:"bytes"`  // on the wire
		Frozen bool  `json:"frozen"` // in the stop
	} `json:"rounds"`
	Slowed struct {
		CPU int     `json:"cpu_percent"`
		MS  float64 `json:"ms"`
	} `json:"slowed"`
}

// Push starts a move. Flags may stand before id and peer. End it with Kill.
func (h *Host) Push(ctx context.Context, args ...string) (*Push, error) {
	p := &Push{
		Cmd:   h.Command(ctx, append([]string{"migrate", "push", "--json"}, args...)...),
		ended: make(chan struct{}), seen: map[string]chan struct{}{},
	}
	p.Cmd.Stderr = &p.stderr
	out, err := p.Cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.Cmd.Start(); err != nil {
		return nil, err
	}
	go p.follow(out)
	return p, nil
}

func (p *Push) follow(out io.Reader) {
	defer close(p.ended)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if err := json.Unmarshal(lines.Bytes(), &p.Result); err != nil {
			p.err = errors.Join(p.err, fmt.Errorf("push prints %q: %w", lines.Text(), err))
			continue
		}
		p.sent.Store(p.Result.Bytes)
		if p.Result.Event == "phase" {
			begun := p.begun(p.Result.Phase)
			select {
			case <-begun:
			default:
				close(begun)
			}
		}
	}
	_ = p.Cmd.Wait()
}

// Sent is how many bytes the phase under way has sent, as the last line of progress says.
func (p *Push) Sent() int64 { return p.sent.Load() }

func (p *Push) begun(phase string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[phase] == nil {
		p.seen[phase] = make(chan struct{})
	}
	return p.seen[phase]
}

// Until waits for a phase to begin; false when the move ended without it.
func (p *Push) Until(phase string) bool {
	select {
	case <-p.begun(phase):
		return true
	case <-p.ended:
		return false
	}
}

// Ended is closed when it has.
func (p *Push) Ended() <-chan struct{} { return p.ended }

// Wait returns the exit code, -1 of one that was killed.
func (p *Push) Wait(patience time.Duration) (int, error) {
	select {
	case <-p.ended:
	case <-time.After(patience):
		return -1, fmt.Errorf("push has not ended after %v", patience)
	}
	return p.Cmd.ProcessState.ExitCode(), p.err
}

// Said is what it printed for people, once it has ended.
func (p *Push) Said() string { return p.stderr.String() }

// Kill ends the process, if it has not. The move goes on without it, or not.
func (p *Push) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.ended
}
