package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/runtime/internal/attribute"
	"github.com/livemigrate/migrate/runtime/internal/console"
	"github.com/livemigrate/migrate/runtime/internal/handshake"
)

// errDied: the channel ended too early. The process was killed, or failed where it could not say why.
var errDied = errors.New("the process died during its set-up")

// converse answers the process until it closes the channel.
func (s *starter) converse(ctx context.Context) error {
	ready := false
	for {
		m, err := s.conn.Receive()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			if !ready {
				return errDied
			}
			return nil
		}
		if err != nil {
			return err
		}
		answer := &handshake.Message{Type: handshake.Continue}
		switch m.Type {
		case handshake.Failed:
			if s.config.Kind == handshake.Exec {
				return errors.New(m.Text)
			}
			return fmt.Errorf("error during container init: %w", errors.New(m.Text))
		case handshake.Mount:
			answer.Type = handshake.Mount
			answer.File, err = s.giveSource(m.Index, m.File)
		case handshake.Hooks:
			err = s.runHooks(ctx)
		case handshake.Ready:
			ready = true
			err = attribute.SetRlimits(s.init.Pid, s.config.Process.Rlimits)
		case handshake.Seccomp:
			err = s.takeListener(m.FD)
			if err == nil {
				continue // answered in between
			}
		default:
			err = fmt.Errorf("unexpected message %q from init", m.Type)
		}
		if err != nil {
			return err
		}
		err = s.conn.Send(answer)
		if answer.File != nil {
			err = errors.Join(err, answer.File.Close())
		}
		if err != nil {
			return err
		}
	}
}

func (s *starter) runHooks(ctx context.Context) error {
	if s.hooks == nil {
		return nil
	}
	for _, kind := range []string{"prestart", "createRuntime"} {
		if err := s.hooks(ctx, kind, s.init.Pid); err != nil {
			return err
		}
	}
	return nil
}

// takeListener takes the seccomp listener out of init, lets init go on, which will wait for the listener's answers as
// soon as it meets the filter, and hands the descriptor to the agent that the spec names.
func (s *starter) takeListener(number int) error {
	profile := s.config.Spec.Linux.Seccomp
	if profile.ListenerPath == "" {
		return errors.New("seccomp listenerPath is not set")
	}
	init, err := pidfd.Open(s.init.Pid)
	if err != nil {
		return fmt.Errorf("take seccomp listener from init: %w", err)
	}
	defer init.Close()
	listener, err := pidfd.GetFD(init, number)
	if err != nil {
		return fmt.Errorf("take seccomp listener from init: %w", err)
	}
	defer listener.Close()
	if err := s.conn.Send(&handshake.Message{Type: handshake.Continue}); err != nil {
		return err
	}
	state := *s.config.State
	state.Status = specs.StateRunning
	if s.config.Kind == handshake.Init {
		state.Pid, state.Status = s.init.Pid, specs.StateCreating
	}
	body, err := json.Marshal(&specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: s.init.Pid,
		Metadata: profile.ListenerMetadata, State: state,
	})
	if err != nil {
		return fmt.Errorf("encode state for the seccomp agent: %w", err)
	}
	return sendListener(profile.ListenerPath, string(body), listener)
}

func sendListener(path, state string, listener *os.File) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("failed to connect with seccomp agent %s: %w", path, err)
	}
	defer conn.Close()
	socket, err := conn.File()
	if err != nil {
		return fmt.Errorf("failed to connect with seccomp agent %s: %w", path, err)
	}
	defer socket.Close()
	if err := console.SendFile(socket, state, listener); err != nil {
		return fmt.Errorf("send seccomp listener to %s: %w", path, err)
	}
	return nil
}
