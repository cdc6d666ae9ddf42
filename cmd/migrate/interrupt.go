package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// readsOnly is the annotation of a verb that changes nothing: a signal may end it at any time, and it is spared what
// taking signals costs, a tenth of its time.
const readsOnly = "reads-only"

// interruptible lets SIGINT and SIGTERM end the verb's context. They are taken while the verb reads what it works on,
// because each costs Go two changes of threads; globals.runtime waits for that. Until then they end the program, which has
// begun nothing.
func (g *globals) interruptible(cmd *cobra.Command) {
	ctx, cancel := context.WithCancel(cmd.Context())
	cmd.SetContext(ctx)
	g.signals = make(chan struct{})
	go func() {
		interrupts := make(chan os.Signal, 1)
		signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM)
		close(g.signals)
		<-interrupts
		cancel()
	}()
}
