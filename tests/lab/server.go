package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Server is a `migrate serve` on a host.
type Server struct {
	Cmd *exec.Cmd
	Log string // its output, a file outside
}

// Serve starts one and waits until it listens. More flags may follow the address.
func (h *Host) Serve(ctx context.Context, listen string, flags ...string) (*Server, error) {
	name := strings.NewReplacer("/", "-", ":", "-").Replace(listen)
	log, err := os.Create(h.Path("/srv/serve-" + name + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s := &Server{Cmd: h.Command(ctx, append([]string{"migrate", "serve", "--listen", listen}, flags...)...), Log: log.Name()}
	s.Cmd.Stdout, s.Cmd.Stderr = log, log
	if err := s.Cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		said, err := os.ReadFile(s.Log)
		if err == nil && strings.Contains(string(said), "listening on") {
			return s, nil
		}
		if s.Cmd.Process.Signal(syscall.Signal(0)) != nil || ctx.Err() != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Stop()
	said, _ := os.ReadFile(s.Log)
	return nil, fmt.Errorf("migrate serve on %s does not listen: %s", h.Name, strings.TrimSpace(string(said)))
}

// Stop ends it. The containers it received stay.
func (s *Server) Stop() {
	_ = s.Cmd.Process.Signal(syscall.SIGTERM)
	_ = s.Cmd.Wait()
}

// Alive tells whether it has not ended.
func (s *Server) Alive() bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Cmd.Process.Pid))
	return err == nil && !strings.Contains(string(state), ") Z ")
}
