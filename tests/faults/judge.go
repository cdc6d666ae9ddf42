package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// exit codes of push and resolve.
const (
	exitMoved   = 0
	exitKept    = 1
	exitUnknown = 3
	exitRefused = 4
	exitKilled  = -1
)

// judge finds what became of the container, and ends what has not ended.
func (c *cell) judge(ctx context.Context, code int) *verdict {
	var v *verdict
	switch code {
	case exitMoved:
		v = c.expect(atPeer)
	case exitKept, exitRefused:
		v = c.expect(atSource)
	case exitUnknown:
		v = c.unknown(ctx)
	case exitKilled:
		if c.fault.name == "reboot-source" {
			v = c.orphaned(ctx)
		} else {
			v = c.abandoned(ctx)
		}
	default:
		v = wrongf("push exits with %d", code)
	}
	if v.kind == wrong {
		v.why += c.story()
		return v
	}
	if c.beats.two() {
		return wrongf("two copies ran%s", c.story())
	}
	if v.at == "" {
		return v
	}
	if err := c.answers(ctx, v); err != nil {
		return wrongf("%v%s", err, c.story())
	}
	if v := c.unlocked(v); v != nil {
		return v
	}
	return v
}

// unlocked requires that the network of the container, and of its host, has no rules of a lock any more.
func (c *cell) unlocked(v *verdict) *verdict {
	h := c.world.A
	if v.at == atPeer {
		h = c.world.B
	}
	for i, pid := range append([]int{h.Holder()}, h.Named("workload")...) {
		if i > 1 { // they share one
			break
		}
		if left, err := rules(pid); err != nil || len(left) > 0 {
			return wrongf("left in the packet filter: %v %v", left, err)
		}
	}
	return nil
}

// story is what push said last, and how copies ended that have.
func (c *cell) story() string {
	var said []string
	if c.push.Result.Error != "" {
		said = append(said, "push: "+c.push.Result.Outcome+", "+c.push.Result.Error)
	}
	for _, h := range []*lab.Host{c.world.A, c.world.B} {
		if exit, err := os.ReadFile(root(h, "/run/migrate/"+containerID+"/exit.json")); err == nil {
			said = append(said, "ended on "+h.Name+": "+strings.TrimSpace(string(exit)))
		}
		if log, err := os.ReadFile(h.Path("/srv/" + containerID + ".log")); err == nil && len(log) > 0 {
			said = append(said, "it said: "+string(log[:min(len(log), 300)]))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, "; ") + ")"
}

const (
	atSource = "source"
	atPeer   = "peer"
	atNone   = "nowhere"
	atBoth   = "both"
)

// where tells which copies run, waiting for one.
func (c *cell) where(patience time.Duration) string {
	for deadline := time.Now().Add(patience); ; {
		switch a, b := c.beats.alive(); {
		case a && b:
			return atBoth
		case a:
			return atSource
		case b:
			return atPeer
		case time.Now().After(deadline):
			return atNone
		}
	}
}

// settlePatience is how long a container may take to run after push has said that it does.
const settlePatience = 3 * time.Second

// expect requires that it runs where push says.
func (c *cell) expect(want string) *verdict {
	at := c.where(settlePatience)
	if at == atNone && want == atPeer && c.lostThere() {
		return &verdict{at: "", why: "moved, and lost with the peer's host"}
	}
	if at == atNone && want == atSource && c.killedHere() {
		return &verdict{at: "", why: "the kernel ended it at the source"}
	}
	if at != want {
		return wrongf("push exits with %d, and the container runs %s", c.push.Cmd.ProcessState.ExitCode(), at)
	}
	return &verdict{at: at}
}

// lostThere: the container was the peer's, and its host went down or ended it.
func (c *cell) lostThere() bool {
	return c.step.late && (c.fault.name == "reboot" || c.fault.name == "memory")
}

// killedHere: the source's kernel ended the container, which it may where there is no memory left.
func (c *cell) killedHere() bool {
	out, _ := c.world.A.Run(context.Background(), "migrate", "state", containerID)
	return c.fault.name == "memory-source" && strings.Contains(out, `"stopped"`)
}

// unknown: the source is frozen, and resolve ends that.
func (c *cell) unknown(ctx context.Context) *verdict {
	if at := c.where(0); at == atSource || at == atBoth {
		return wrongf("push exits with 3, and the container runs %s", at)
	}
	out, err := c.world.A.Run(ctx, "migrate", "resolve", "--retry", "20s", containerID)
	if lab.ExitCode(err) == exitUnknown {
		return c.force(ctx, err)
	}
	if err != nil {
		return wrongf("resolve: %s %v", out, err)
	}
	return c.ran("resolve", strings.Contains(out, "at the peer"))
}

// ran requires that it runs where resolve says.
func (c *cell) ran(how string, moved bool) *verdict {
	want := atSource
	if moved {
		want = atPeer
	}
	if at := c.where(settlePatience); at != want {
		return wrongf("resolve says that it runs at the %s, and it runs %s", want, at)
	}
	return &verdict{at: want, ended: how}
}

// force: the peer can't have it any more. That is for cells in which what it had of it is gone.
func (c *cell) force(ctx context.Context, cause error) *verdict {
	if at := c.where(0); at != atNone && at != atPeer {
		return wrongf("resolve exits with 3, and the container runs %s", at)
	}
	if !c.gone() {
		return wrongf("resolve does not end it: %v", cause)
	}
	if _, err := c.world.B.Run(ctx, "migrate", "delete", "--force", containerID); err != nil {
		return wrongf("delete what is left at the peer: %v", err)
	}
	if c.beats.two() {
		return wrongf("two copies ran")
	}
	c.beats.forgive()
	out, err := c.world.A.Run(ctx, "migrate", "resolve", "--force-source", containerID)
	if err != nil {
		return wrongf("resolve --force-source: %s %v", out, err)
	}
	return c.ran("force", false)
}

// gone: the fault took from the peer what it had.
func (c *cell) gone() bool {
	return c.fault.name == "reboot" || c.fault.name == "memory"
}

// abandoned: push was killed, and the keepers end the move without it.
func (c *cell) abandoned(ctx context.Context) *verdict {
	for deadline := time.Now().Add(patience); len(c.world.A.Keepers())+len(c.world.B.Keepers()) > 0; {
		if time.Now().After(deadline) {
			return wrongf("a keeper still works on it")
		}
		time.Sleep(5 * time.Millisecond)
	}
	at := c.where(settlePatience)
	switch at {
	case atBoth:
		return wrongf("both copies run")
	case atNone:
		if c.lostThere() || c.killedHere() {
			return &verdict{}
		}
		return c.unknown(ctx)
	}
	return &verdict{at: at}
}

// orphaned: the source's host went down, and the container there with it. The peer has it, or has nothing of it.
func (c *cell) orphaned(ctx context.Context) *verdict {
	w := c.world
	v := &verdict{why: "lost with the source's host"}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		_, err := os.Stat(root(w.B, "/run/migrate/"+containerID))
		half := err == nil || len(w.B.Keepers()) > 0
		if at := c.where(0); at == atPeer {
			v = &verdict{at: at}
			break
		} else if !half {
			break
		}
		if time.Now().After(deadline) {
			if c.later() {
				break // it stands still for want of its memory, and is there to be deleted
			}
			return wrongf("the peer has a half of a container whose source is gone")
		}
	}
	out, err := w.A.Run(ctx, "migrate", "resolve", "--retry", "10s", containerID)
	if v.at == atPeer && err != nil && !strings.Contains(err.Error(), "no interrupted move") {
		return wrongf("the peer has it, and resolve at the source says: %s %v", out, err)
	}
	if at := c.where(settlePatience); v.at == atPeer && at != atPeer {
		return wrongf("it ran at the peer, and after resolve at the source it runs %s", at)
	}
	return v
}

// later: memory may follow when the container runs at the peer.
func (c *cell) later() bool { return c.mode == "post-copy" || c.mode == "hybrid" }

// answers: what the client was told is so, on its own connection, or where the peer took that with it, on a new one.
func (c *cell) answers(ctx context.Context, v *verdict) error {
	if v.ended == "force" {
		again, err := c.world.Converse(ctx, containerIP+":7000", "check", "ok %d")
		if err != nil {
			return err
		}
		defer again.Close()
		return again.Unharmed(clientPatience)
	}
	return c.client.Unharmed(clientPatience)
}
