package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopPatience is how long a monitor that was told to give up has to take the container down again.
const stopPatience = 10 * time.Second

// result is the answer of a spawned monitor.
type result struct {
	Pid   int    `json:"pid,omitempty"`
	Error string `json:"error,omitempty"`
}

// Spawn starts a monitor and returns the pid of the init of the container that it made and started. args are those of
// exe that lead to Run, and take the descriptor of the configuration as --config-fd N at their end. Errors of the
// monitor come as their text. When ctx ends first the monitor is told to give up (SIGTERM), and has the container
// removed when Spawn returns.
func Spawn(ctx context.Context, exe string, args []string, c *Config) (pid int, err error) {
	config := *c
	config.LogFile, err = absolute(c.LogFile)
	if err != nil {
		return 0, err
	}
	const answers, more = 4, 5
	config.Inherited = Inherited{Answer: answers}
	for i := range c.Extra {
		config.Inherited.Extra = append(config.Inherited.Extra, more+i)
	}
	configRead, err := config.pipe()
	if err != nil {
		return 0, err
	}
	defer configRead.Close()
	answer, answerWrite, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("start monitor: %w", err)
	}
	defer answer.Close()

	// Not ctx: it would kill the monitor for the rest of the container's life.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), exe, append(args, "--config-fd", "3")...)
	cmd.Args[0] = os.Args[0] // what ps shows: exe may be /proc/self/exe
	cmd.ExtraFiles = append([]*os.File{configRead, answerWrite}, c.Extra...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	answerWrite.Close()
	if err != nil {
		return 0, fmt.Errorf("start monitor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		time.AfterFunc(stopPatience, func() { _ = cmd.Process.Kill() })
	})
	defer stop()

	var got result
	err = json.NewDecoder(answer).Decode(&got)
	if err == nil && got.Error == "" {
		return got.Pid, cmd.Process.Release()
	}
	ended := cmd.Wait() // by itself: it has said why, or is dead
	switch {
	case got.Error != "":
		err = errors.New(got.Error)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("start monitor: it ended without an answer: %w", ended)
	default:
		err = errors.Join(fmt.Errorf("start monitor: read its answer: %w", err), ended)
	}
	return 0, errors.Join(ctx.Err(), err)
}

// reply tells Spawn how it went, and closes the descriptor, which Spawn waits for. Without one nobody asks.
func reply(fd, pid int, err error) error {
	if fd == 0 {
		return nil
	}
	answer := os.NewFile(uintptr(fd), "answer")
	defer answer.Close()
	r := result{Pid: pid}
	if err != nil {
		r = result{Error: err.Error()}
	}
	if err := json.NewEncoder(answer).Encode(r); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// pipe returns the read end of a pipe with the configuration in it.
func (c *Config) pipe() (*os.File, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write monitor configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("write monitor configuration: %d bytes are too many", len(text))
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("write monitor configuration: %w", err)
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("write monitor configuration: %w", err), r.Close())
	}
	return r, nil
}
