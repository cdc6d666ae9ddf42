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

// Carry begins at an offset of the log. stdio stays the caller's; its Output must have been called. End it with Stop.
func Carry(logFile string, offset int64, stdio *Stdio) (*Carrier, error) {
	c, err := carry(logFile, offset, stdio)
	if err != nil {
		return nil, fmt.Errorf("carry output: %w", err)
	}
	return c, nil
}

func carry(logFile string, offset int64, stdio *Stdio) (*Carrier, error) {
	log, err := openLog(logFile, offset)
	if err != nil {
		return nil, err
	}
	c := &Carrier{output: &output{log: log}, done: make(chan struct{})}
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

// Stop ends it and returns the offset behind the last byte that was taken: Config.Offset of the monitor.
func (c *Carrier) Stop() (offset int64, err error) {
	c.output.over.Store(true)
	err = c.output.source.SetReadDeadline(time.Unix(1, 0))
	if err == nil {
		<-c.done
	}
	return c.output.position(), errors.Join(err, c.output.close())
}
