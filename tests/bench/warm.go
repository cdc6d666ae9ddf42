package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// warmth is a process that holds touched memory. What it releases is warm for the next one to take, but only for seconds: the
// kernel reports free pages to the hypervisor, and their next touch is a fault out there.
type warmth struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	done   *bufio.Reader
}

func startWarmth(ctx context.Context, self string) (*warmth, error) {
	w := &warmth{cmd: exec.CommandContext(ctx, self, "warm")}
	w.cmd.Stderr = os.Stderr
	var err error
	if w.orders, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.done = bufio.NewReader(out)
	return w, w.cmd.Start()
}

// hold makes it hold at least so many MB.
func (w *warmth) hold(mb int) error { return w.order(mb) }

// release makes it let go of so many MB.
func (w *warmth) release(mb int) error { return w.order(-mb) }

func (w *warmth) order(mb int) error {
	if _, err := fmt.Fprintln(w.orders, mb); err != nil {
		return fmt.Errorf("order warm memory: %w", err)
	}
	if _, err := w.done.ReadString('\n'); err != nil {
		return fmt.Errorf("await warm memory: %w", err)
	}
	return nil
}

func (w *warmth) close() {
	w.orders.Close()
	_ = w.cmd.Wait()
}

// warm is that process: N on standard input = hold at least N MB, -N = let go of N MB.
func warm() error {
	const block = 32 // MB
	var blocks [][]byte
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var mb int
		if _, err := fmt.Sscan(lines.Text(), &mb); err != nil {
			return err
		}
		for len(blocks)*block < mb {
			b, err := syscall.Mmap(-1, 0, block<<20, syscall.PROT_READ|syscall.PROT_WRITE,
				syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
			if err != nil {
				return fmt.Errorf("hold %d MB: %w", mb, err)
			}
			blocks = append(blocks, b)
		}
		for ; mb < 0 && len(blocks) > 0; mb += block {
			if err := syscall.Munmap(blocks[len(blocks)-1]); err != nil {
				return err
			}
			blocks = blocks[:len(blocks)-1]
		}
		fmt.Fprintln(os.Stdout, "done")
	}
	return lines.Err()
}
