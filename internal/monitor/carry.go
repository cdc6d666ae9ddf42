package monitor

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
)

// Carrier brings a container's output into its log for a process that is to become its monitor and has something else to do
// before: a pipe that nobody reads stops the container when it is full.
type Carrier struct {
	output *output
	done   chan struct{}
}

// Carry begins with what Exec is to be told of the log, which need not be there. stdio stays the caller's; its Output must have
// been called. End it with Stop.
func Carry(config *Config, stdio *Stdio) (*Carrier, error) {
	c, err := carry(config, stdio)
	if err != nil {
		return nil, fmt.Errorf("carry output: %w", err)
	}
	return c, nil
}

func carry(config *Config, stdio *Stdio) (*Carrier, error) {
	c := &Carrier{output: &output{log: goOn(config)}, done: make(chan struct{})}
	source, err := again(stdio.output)
	if err == nil {
		err = c.output.open(source)
	}
	if err != nil {
		return nil, errors.Join(err, c.output.close())
	}
	go func() {
		defer close(c.done)
		c.output.read()
	}()
	return c, nil
}

// Done is closed when nobody can write any more, and all is read.
func (c *Carrier) Done() <-chan struct{} { return c.done }

// again is a descriptor of its own of an open file, which the poller knows.
func again(file *os.File) (*os.File, error) {
	var fd int
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(number uintptr) { fd, err = syscall.Dup(int(number)) })
	if err := errors.Join(controlErr, os.NewSyscallError("dup", err)); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return descriptor.Pollable(fd, file.Name())
}

// Stop ends it and returns the offset behind the last byte that was taken, and how much no log has taken: Config.Offset and
// Config.Lost of the monitor.
func (c *Carrier) Stop() (offset, lost int64, err error) {
	c.output.over.Store(true)
	err = c.output.source.SetReadDeadline(time.Unix(1, 0))
	if err == nil {
		<-c.done
	}
	err = errors.Join(err, c.output.close())
	return c.output.position(), c.output.log.lost, err
}
