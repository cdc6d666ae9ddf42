// Package monitor is the one small process that stays with a detached container: it owns the container's output and
// writes the log, is the parent of its init, and keeps the exit status.
//
// It comes to be in two ways. On the host where the container is made, Spawn starts it and it makes the container:
//
//  1. Spawn: a new session, the Config on a pipe. It returns init's pid, or why there is none.
//  2. Run in the new process: the log is opened, the pipes or the console socket are made (NewStdio).
//  3. The container is created; its program does not run yet.
//  4. The control socket is opened, the output is read, and only now the program starts.
//  5. The answer goes back, and the monitor is on its own until init has ended and the output is drained.
//
// On the host that a container moves to, the keeper already is init's parent and holds the pipes: it becomes the monitor
// by Exec, which keeps the child and the descriptors, and Run goes on at step 4.
//
// What the container writes is appended to the log as it is, standard output and error through one pipe so that their
// order is true. The container is never stopped by a log that cannot be written, as on a full disk: what does not fit is
// dropped, and a line in the log says how much as soon as there is space again. Nor does it end for a log that can't be opened where
// it has come to: that is tried again with all that it writes. SIGHUP reopens the log, after a rotation.
//
// Attach joins a container over the control socket: a client sees what is written from then on, and what it sends becomes
// the input of a container that has a terminal, or whose standard input is a pipe that the monitor keeps open. A client that
// does not read misses output; it stops neither the container nor the log.
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// Config is what a monitor is told. It travels to the process as JSON on a pipe.
type Config struct {
	ID       string `json:"id"`
	StateDir string `json:"state_dir"` // the container's; the control socket and the exit status are here
	LogFile  string `json:"log_file"`  // made absolute by Spawn and Exec
	// Named: another host has said LogFile. It is opened as OpenNamed does it, each time.
	Named bool `json:"named,omitempty"`
	// LogLimit is the size in bytes at which the log is renamed to LogFile + ".1", in place of an earlier one; 0 is never.
	LogLimit int64 `json:"log_limit,omitempty"`
	Terminal bool  `json:"terminal,omitempty"`
	// Interactive: of Spawn, without a terminal. Standard input is a pipe that attached clients write to, and not empty.
	Interactive bool `json:"interactive,omitempty"`
	InitPid     int  `json:"init_pid,omitempty"` // of Exec: a child of the process
	// Offset is how much the container has written before, on other hosts: offsets go on from here.
	Offset int64 `json:"offset,omitempty"`
	// Lost is how much of that is in no log, and not yet told of there.
	Lost int64 `json:"lost,omitempty"`
	// Log is the log as it was opened before, nil for none: Carry and Exec go on with it where LogFile can't be opened. It stays the
	// caller's.
	Log *os.File `json:"-"`
	// Listening is called by Exec, nil for none: whoever asks this monitor from now on is answered, a moment later.
	Listening func() `json:"-"`

	// Extra are files for the container, of Spawn: Create has them in Inherited.
	Extra []*os.File `json:"-"`

	Inherited Inherited `json:"inherited"` // set by Spawn and Exec
}

// Inherited are the numbers of the descriptors that were open before the process became a monitor; 0 is none.
type Inherited struct {
	Answer  int   `json:"answer,omitempty"`  // Spawn: where the result goes
	Extra   []int `json:"extra,omitempty"`   // Spawn: files for the container, which Create closes
	Output  int   `json:"output,omitempty"`  // Exec: the pipe's read end, or the terminal's master
	Input   int   `json:"input,omitempty"`   // Exec: the write end of standard input, where that is a pipe
	Log     int   `json:"log,omitempty"`     // Exec
	Control int   `json:"control,omitempty"` // Exec: the listening control socket
}

// Container is what a spawned monitor looks after.
type Container interface {
	// Create makes the container with the monitor's stdio and returns the pid of its init, which must be a descendant of
	// this process and must not run the container's program yet.
	Create(ctx context.Context, stdio *Stdio) (pid int, err error)
	// Start lets the program run.
	Start(ctx context.Context) error
	// Delete undoes Create, when a later step failed.
	Delete(ctx context.Context) error
}

// ReadConfig takes the configuration from descriptor fd, and closes it. The descriptors that came along are kept from
// children: an answer that init holds open too would never be known to be missing.
func ReadConfig(fd int) (*Config, error) {
	f := os.NewFile(uintptr(fd), "monitor configuration")
	if f == nil {
		return nil, fmt.Errorf("read monitor configuration: no descriptor %d", fd)
	}
	defer f.Close()
	c := &Config{}
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(c); err != nil {
		return nil, fmt.Errorf("read monitor configuration: %w", err)
	}
	inherited := c.Inherited
	for _, fd := range append(inherited.Extra, inherited.Answer, inherited.Output, inherited.Input, inherited.Log, inherited.Control) {
		if fd == 0 {
			continue
		}
		if err := descriptor.Withhold(fd); err != nil {
			return nil, fmt.Errorf("read monitor configuration: %w", err)
		}
	}
	return c, nil
}

// maxConfig fits into a pipe, so that it can be written before there is a reader.
const maxConfig = 1 << 15

// Run is the life of the monitor's process. c is from ReadConfig. With Spawn's, container is created and started, a
// failure is both returned and answered, and ctx ends the attempt; with Exec's it is not used. Once the container runs,
// ctx counts no more: Run returns when init has ended, its status is kept, and everything it wrote is in the log.
//
// The process must have no other use: children that end are reaped, and SIGINT, SIGTERM and SIGHUP are taken.
func Run(ctx context.Context, c *Config, container Container) error {
	if err := process.BecomeSubreaper(); err != nil {
		return fmt.Errorf("monitor container %q: %w", c.ID, err)
	}
	m := &monitor{config: c, ended: make(chan struct{}), rotated: make(chan os.Signal, 1)}
	signal.Notify(m.rotated, syscall.SIGHUP)
	var err error
	if c.Inherited.Control != 0 {
		err = m.adopt()
	} else {
		err = m.begin(ctx, container)
		signal.Ignore(ending...)
		err = errors.Join(err, reply(c.Inherited.Answer, m.initPid, err))
	}
	if err != nil {
		return fmt.Errorf("monitor container %q: %w", c.ID, err)
	}
	if err := m.stay(); err != nil {
		return fmt.Errorf("monitor container %q: %w", c.ID, err)
	}
	return nil
}

// monitor is one container's, in its process.
type monitor struct {
	config  *Config
	initPid int
	state   *os.Root // of the state directory: another container may take its name before this one is through
	exit    *os.File
	output  *output
	clients audience
	control *control
	ended   chan struct{} // closed when init has ended
	rotated chan os.Signal
	reading sync.WaitGroup
}

// ending are signals that a monitor must not end by: they come to everybody at a shutdown, which ends the container first.
var ending = []os.Signal{syscall.SIGINT, syscall.SIGTERM}

// begin makes the container. When it fails nothing is left of it.
func (m *monitor) begin(ctx context.Context, container Container) (err error) {
	log, err := openLog(m.config)
	if err != nil {
		return err
	}
	m.output = &output{log: log, ended: m.ended, show: &m.clients}
	stdio, err := NewStdio(m.config.Terminal, m.config.Interactive)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stdio.Close())
		}
	}()
	m.initPid, err = container.Create(ctx, stdio)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, container.Delete(context.WithoutCancel(ctx)))
		}
	}()
	source, err := stdio.Output(ctx)
	if err != nil {
		return err
	}
	listener, err := listen(m.config.StateDir)
	if err != nil {
		return err
	}
	if err := m.open(source, stdio.input, listener); err != nil {
		return errors.Join(err, unlisten(listener, m.config.StateDir))
	}
	if err := container.Start(ctx); err != nil {
		return errors.Join(err, m.control.close(m.state))
	}
	return nil
}

// adopt takes up what Exec left open.
func (m *monitor) adopt() error {
	inherited := m.config.Inherited
	m.initPid = m.config.InitPid
	m.output = &output{log: inheritLog(m.config), ended: m.ended, show: &m.clients}
	listener, err := inheritListener(inherited.Control)
	if err != nil {
		return err
	}
	var source, stdin *os.File
	if inherited.Output != 0 {
		source, err = descriptor.Pollable(inherited.Output, "output")
		if err != nil {
			return err
		}
	}
	if inherited.Input != 0 {
		stdin, err = descriptor.Pollable(inherited.Input, "input")
		if err != nil {
			return err
		}
	}
	return m.open(source, stdin, listener)
}

// open starts to read the output, unless the container has standard streams of its own, and to answer. stdin is nil unless
// it is a pipe.
func (m *monitor) open(source, stdin *os.File, listener *net.UnixListener) (err error) {
	m.state, err = os.OpenRoot(m.config.StateDir)
	if err != nil {
		return fmt.Errorf("open state directory: %w", err)
	}
	m.exit, err = openExit(m.state)
	if err != nil {
		return err
	}
	if source != nil {
		if err := m.output.open(source); err != nil {
			return err
		}
		m.reading.Go(m.output.read)
	}
	switch {
	case m.config.Terminal && source != nil:
		m.clients.input = &input{file: source, terminal: true}
	case stdin != nil:
		m.clients.input = &input{file: stdin}
	}
	m.control = &control{listener: listener, output: m.output, audience: &m.clients}
	go m.control.serve()
	return nil
}

// stay lasts as long as the container.
func (m *monitor) stay() error {
	signal.Ignore(ending...)
	go func() {
		for range m.rotated {
			_ = m.output.reopenLog() // else the old file goes on, and whoever rotates sees it
		}
	}()
	err := os.Chdir("/") // or the directory it was started in could never be unmounted
	// Making a container leaves garbage that would else stay for its whole life.
	debug.SetGCPercent(20)
	debug.FreeOSMemory()

	exit, waitErr := m.waitForInit()
	if waitErr == nil {
		waitErr = keepExit(m.exit, exit)
	}
	close(m.ended)
	go m.reapOrphans()
	m.reading.Wait()
	m.clients.exit(exit)
	return errors.Join(err, waitErr, m.output.close(), m.control.close(m.state), m.exit.Close(), m.state.Close())
}

// waitForInit reaps init, and before it every orphan that comes to this process.
func (m *monitor) waitForInit() (*Exit, error) {
	for {
		pid, status, err := process.WaitAny()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("wait for init %d: %w", m.initPid, err), m.waitForStranger())
		}
		if pid == m.initPid {
			return newExit(status), nil
		}
	}
}

// waitForStranger is for an init that is not a child: its status is lost, but its output still has to be read.
func (m *monitor) waitForStranger() error {
	init, err := pidfd.Open(m.initPid)
	if err != nil {
		return err
	}
	defer init.Close()
	return pidfd.Wait(context.Background(), init)
}

// reapOrphans goes on while processes that outlived init, in a container without a pid namespace, still write.
func (m *monitor) reapOrphans() {
	for {
		if _, _, err := process.WaitAny(); err != nil {
			return
		}
	}
}
