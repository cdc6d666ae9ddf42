package monitor

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
)

// Exec makes the calling process, which is the parent of c.InitPid, its monitor: it replaces the process's program by
// exe with args (as in Spawn), and does not return. stdio is what the container was restored with, its terminal received
// or taken; nil when the container has standard streams of its own. Everything that is likely to fail is done before the
// program is replaced; when Exec does return, with an error, the process goes on and stdio is still open, but SIGINT,
// SIGTERM and SIGHUP may be ignored. A log that can't be opened is no such error.
//
// All other threads end at once, whatever they do, and children started with a parent-death signal get it.
func Exec(exe string, args []string, c *Config, stdio *Stdio) error {
	if err := become(exe, args, *c, stdio); err != nil {
		return fmt.Errorf("become the monitor of container %q: %w", c.ID, err)
	}
	return nil
}

func become(exe string, args []string, c Config, stdio *Stdio) (err error) {
	c.LogFile, err = absolute(c.LogFile)
	if err != nil {
		return err
	}
	log := goOn(&c)
	if log.file != nil {
		defer log.file.Close()
	}
	listener, err := listen(c.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlisten(listener, c.StateDir)) }()
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("keep control socket: %w", err)
	}
	defer socket.Close()
	if c.Listening != nil {
		c.Listening()
	}

	c.Inherited = Inherited{}
	if log.file != nil {
		if c.Inherited.Log, err = descriptor.Inherit(log.file); err != nil {
			return err
		}
	}
	if c.Inherited.Control, err = descriptor.Inherit(socket); err != nil {
		return err
	}
	if stdio != nil {
		if stdio.output == nil {
			return errors.New("its terminal has not arrived")
		}
		if c.Inherited.Output, err = descriptor.Inherit(stdio.output); err != nil {
			return err
		}
		if stdio.input != nil {
			if c.Inherited.Input, err = descriptor.Inherit(stdio.input); err != nil {
				return err
			}
		}
	}
	config, err := c.pipe()
	if err != nil {
		return err
	}
	defer config.Close()
	configFD, err := descriptor.Inherit(config)
	if err != nil {
		return err
	}
	argv := append(append([]string{os.Args[0]}, args...), "--config-fd", strconv.Itoa(configFD))
	// Handlers end with the program, and the next one has its own only a moment later.
	signal.Ignore(append(ending, syscall.SIGHUP)...)
	return os.NewSyscallError("exec "+exe, syscall.Exec(exe, argv, os.Environ()))
}
