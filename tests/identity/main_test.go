// Package identity moves containers between the lab's hosts and looks whether all of what they are came along: addresses,
// connections, volumes, files, output. `make test-identity` prints a line for each, with its figure.
package identity

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
	"github.com/livemigrate/migrate/tests/lab/labtest"
)

// long asks for the forms that take minutes: hundreds of thousands of files, gigabytes.
var long = flag.Bool("identity.long", false, "whole sizes, as make test-identity has them")

// TestMain prints the table when all tests are over.
func TestMain(m *testing.M) {
	flag.Parse()
	status := m.Run()
	table.print()
	os.Exit(status)
}

// found is what the tests have found out, a line each.
type found struct {
	mu    sync.Mutex
	lines []string
}

var table found

// figure adds a line to the table: what was looked at, and what was found.
func figure(what, format string, args ...any) {
	table.mu.Lock()
	defer table.mu.Unlock()
	table.lines = append(table.lines, fmt.Sprintf("%-44s %s", what, fmt.Sprintf(format, args...)))
}

func (f *found) print() {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.lines)
	if len(f.lines) > 0 {
		fmt.Println(strings.Join(f.lines, "\n"))
	}
}

// world is a lab with a peer's side that listens on both hosts.
type world struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
}

// newWorld makes it; everything is gone when the test ends. The flags are those of serve, on both hosts.
func newWorld(t *testing.T, limit time.Duration, flags ...string) *world {
	t.Helper()
	ctx, l := labtest.Up(t, "i", limit)
	w := &world{Lab: l, t: t, ctx: ctx}
	for _, h := range []*lab.Host{l.A, l.B} {
		server, err := h.Serve(ctx, w.tls(h), flags...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Stop)
	}
	return w
}

func (w *world) tls(h *lab.Host) string { return "tls://" + h.IP + ":7440" }

// push moves a container from one host to another and returns the result of a move that has to succeed.
func (w *world) push(from, to *lab.Host, args ...string) lab.PushResult {
	w.t.Helper()
	move, err := from.Push(w.ctx, append(args, w.tls(to))...)
	if err != nil {
		w.t.Fatal(err)
	}
	code, err := move.Wait(2 * time.Minute)
	if code != 0 || err != nil {
		w.t.Fatalf("push %v: exit status %d, %v: %s: %s", args, code, err, move.Result.Error, move.Said())
	}
	return move.Result
}
