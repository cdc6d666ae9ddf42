package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
)

// TestMain is also the workload, and whatever it starts: this program runs itself again.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("WORKLOAD_KINDS") != "" && len(os.Args) > 1 && os.Args[1] == "kinds":
		k, err := startKinds(kindsFlags(os.Args[2:]))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		spoiled(k)
	case os.Getenv("WORKLOAD_KINDS") != "":
		if err := run(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// spoiled answers checks on standard input, and spoils pages of the kinds that it is told of in between.
func spoiled(k *kinds) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		word, kind, _ := strings.Cut(lines.Text(), " ")
		a := k.named(kind)
		switch word {
		case "check":
			fmt.Println(k.check())
			continue
		case "kinds":
			seen := map[string]bool{}
			for _, a := range k.areas {
				if !seen[a.kind] {
					seen[a.kind] = true
					fmt.Println(a.kind)
				}
			}
			fmt.Println()
			continue
		}
		k.mu.Lock()
		switch word {
		case "lose": // the page is zeros, as where nothing was restored, or not, where nothing was to be
			a.open()
			if a.versions[0]&(zeros|either) != 0 {
				a.write(0)
			}
			was := a.page(0)[100]
			a.page(0)[100] = 0
			if was == 0 {
				a.page(0)[100] = 1
			}
			a.shut()
		case "stale": // a page as it was, with a table as it is
			a.write(0)
			a.write(0)
			a.page(0).fill(a.identity(0), uint64(a.versions[0]-1))
		case "rewound": // a page as it was, and a table as it was
			a.write(0)
			a.versions[0]--
			a.page(0).fill(a.identity(0), uint64(a.versions[0]))
		case "mend":
			a.open()
			a.write(0)
			a.shut()
			a.account(parent)
		}
		k.mu.Unlock()
		fmt.Println("done")
	}
	os.Exit(0)
}

type conversation struct {
	t       *testing.T
	to      io.Writer
	answers *bufio.Scanner
}

func converse(t *testing.T, flags ...string) *conversation {
	t.Helper()
	testutil.Root(t) // for what is mapped and locked
	cmd := exec.Command("/proc/self/exe", append([]string{"kinds", "--dir", t.TempDir(), "--shm", t.TempDir()}, flags...)...)
	cmd.Env = append(os.Environ(), "WORKLOAD_KINDS=1")
	cmd.Stderr = os.Stderr
	to, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		to.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &conversation{t: t, to: to, answers: bufio.NewScanner(answers)}
}

func (c *conversation) ask(question string) string {
	c.t.Helper()
	fmt.Fprintln(c.to, question)
	if !c.answers.Scan() {
		c.t.Fatalf("%s: the workload ended", question)
	}
	return c.answers.Text()
}

func TestKindsAreRightAsLongAsNobodyTouchesThem(t *testing.T) {
	c := converse(t, "--rate", "20000", "--megabytes", "1", "--small", "100", "--forks", "3")
	for range 20 {
		if got := c.ask("check"); got != "<nil>" {
			t.Fatal(got)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestKindsTellWhatIsWrong(t *testing.T) {
	c := converse(t, "--rate", "0", "--megabytes", "1", "--small", "10", "--forks", "0")
	kinds := []string{c.ask("kinds")}
	for c.answers.Scan() && c.answers.Text() != "" {
		kinds = append(kinds, c.answers.Text())
	}
	if len(kinds) < 20 {
		t.Errorf("the kinds are %q", kinds)
	}
	for _, kind := range kinds {
		for spoil, says := range map[string]string{"lose": "byte 800", "stale": "wanted version", "rewound": "written"} {
			if spoil != "lose" && (kind == "unreadable" || kind == "read-only" || kind == "never written") {
				continue
			}
			c.ask(spoil + " " + kind)
			if got := c.ask("check"); !strings.Contains(got, kind) || !strings.Contains(got, says) {
				t.Errorf("after %s %s the workload says %q", spoil, kind, got)
			}
			c.ask("mend " + kind)
		}
	}
	if got := c.ask("check"); got != "<nil>" {
		t.Error(got)
	}
}

// What a child has is its own: the fault is in the copy that it was forked with.
func TestForkedChildTellsWhatIsWrong(t *testing.T) {
	c := converse(t, "--rate", "0", "--megabytes", "1", "--small", "10", "--forks", "1")
	c.ask("lose brk")
	for range 100 {
		if got := c.ask("check"); strings.Contains(got, "a child's brk") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("no child finds it")
}
