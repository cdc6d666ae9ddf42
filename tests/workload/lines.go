package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// lines writes numbered lines to standard output and standard error by turns, until SIGTERM. The last line says how many.
//
//	out 1 ....
//	err 1 ....
//	end 1
func lines(args []string) error {
	flags := flag.NewFlagSet("lines", flag.ContinueOnError)
	every := flags.Duration("every", 0, "time between two pairs of lines")
	length := flags.Int("length", 0, "of a line, without its end; shorter ones are filled with dots")
	pause := flags.Duration("pause", 0, "in the middle of each line")
	if err := flags.Parse(args); err != nil {
		return err
	}
	over := make(chan os.Signal, 1)
	signal.Notify(over, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE)
	for n := 1; ; n++ {
		out := line(os.Stdout, "out", n, *length, *pause)
		if err := errors.Join(out, line(os.Stderr, "err", n, *length, *pause)); err != nil {
			return err
		}
		select {
		case <-over:
			_, err := fmt.Printf("end %d\n", n)
			return err
		default:
		}
		if *every > 0 {
			time.Sleep(*every)
		}
	}
}

// line is one write, or two with a pause between them. A write that a signal cuts short goes on.
func line(file *os.File, name string, n, length int, pause time.Duration) error {
	text := fmt.Sprintf("%s %d", name, n)
	text += strings.Repeat(".", max(0, length-len(text))) + "\n"
	half := len(text)
	if pause > 0 {
		half /= 2
	}
	_, err := file.WriteString(text[:half])
	if pause > 0 {
		time.Sleep(pause)
		_, restErr := file.WriteString(text[half:])
		err = errors.Join(err, restErr)
	}
	return err
}
