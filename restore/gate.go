package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/runtime"
)

// errAbort is the cause that Abort gives CRIU, so that its answer is not taken for a failure.
var errAbort = errors.New("restore aborted")

// errNotResumed: CRIU reported success without its last notification.
var errNotResumed = errors.New("criu ended without pre-resume")

// Gate is a restored container that has not run yet. It must be ended by Open or by Abort, once.
type Gate struct {
	*attempt
	wrote time.Duration
}

// Pid is the container's init, a child of this process.
func (g *Gate) Pid() int {
	return g.pid
}

// CRIUPid is the process that holds the tree back. Should it die, end with Abort.
func (g *Gate) CRIUPid() int {
	return g.client.Pid()
}

// Link is the container's place on its network, nil without one: up, and not on its bridge.
func (g *Gate) Link() *link.Link {
	return g.prepared.Link()
}

// Open lets the container run. In CRIU's pre-resume notification, when nothing can fail any more that would kill the tree,
// its state is written and then running is called: what that does (write the journal, join the bridge, announce) makes the
// container be here. When it returns an error the tree is killed. After any error of Open every process is dead and reaped,
// with one exception: what fails after running, as a poststart hook, comes with the container, which may live.
func (g *Gate) Open(ctx context.Context, running func() error) (*runtime.Container, error) {
	c, err := g.resume(ctx, running)
	if err == nil && c == nil {
		err = errNotResumed
	}
	if c == nil {
		return nil, fmt.Errorf("restore container %s: %w", g.prepared.ID(), errors.Join(err, g.destroy(), g.release()))
	}
	if err := errors.Join(err, g.thaw(), g.prepared.Resumed(ctx), g.release()); err != nil {
		return c, fmt.Errorf("restore container %s: %w", g.prepared.ID(), err)
	}
	return c, nil
}

// resume answers post-restore with yes and follows CRIU to its end. The container is returned once running has succeeded.
func (g *Gate) resume(ctx context.Context, running func() error) (c *runtime.Container, err error) {
	if running != nil {
		// From the answer on CRIU lets the tasks run, whatever becomes of this process: it must not before they are frozen.
		if err := g.client.Hold(); err != nil {
			return nil, err
		}
	}
	err = g.call.Accept(ctx)
	for err == nil {
		var n *criu.Notification
		if n, err = g.call.Next(ctx); err != nil {
			break
		}
		switch n.Script {
		case "pre-resume":
			if c, err = g.adopt(ctx, running); err != nil {
				return nil, err
			}
		case "post-resume":
			if err := g.thaw(); err != nil {
				return c, err
			}
		}
		err = g.call.Accept(ctx)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return c, err
}

// Wrote is how long the container's state took to be written in Open.
func (g *Gate) Wrote() time.Duration { return g.wrote }

// adopt makes the stopped processes the container.
func (g *Gate) adopt(ctx context.Context, running func() error) (*runtime.Container, error) {
	if err := failpoint.Hit(ctx, failpoint.PeerResume); err != nil {
		return nil, err
	}
	began := time.Now()
	c, err := g.prepared.Adopt(ctx, g.pid, &runtime.AdoptOptions{
		ExternalDescriptors: g.stdio(),
		Created:             g.options.Created,
		LogFile:             g.options.LogFile,
		MonitorPid:          g.options.MonitorPid,
	})
	g.wrote = time.Since(began)
	if err != nil {
		return nil, err
	}
	if g.feeding != nil {
		if err := g.feeding.hold(ctx); err != nil {
			return nil, err
		}
	}
	g.freeze(ctx, c)
	if g.undoFreeze != nil { // they stay, whoever lets go of them
		if err := g.client.Release(); err != nil {
			return nil, err
		}
	}
	if running != nil {
		if err := running(); err != nil {
			return nil, err
		}
	}
	if err := g.client.Release(); err != nil { // what runs here is not killed for that: CRIU only waits for us, and we live
		g.options.log().Warn("can't let go of criu", "error", err)
	}
	return c, nil
}

// stdio is where the container's descriptors point now: to the pipes it was given, else where they pointed before.
func (g *Gate) stdio() []string {
	now := make([]string, len(g.descriptors))
	for i, before := range g.descriptors {
		now[i] = before
		if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", g.pid, i)); err == nil && i < stdioFiles && isPipe(before) {
			now[i] = target
		}
	}
	return now
}

// Abort kills the container's processes, of which none has run, and reaps them.
// After an Open that failed, or another Abort, there is nothing left to do.
func (g *Gate) Abort(ctx context.Context) error {
	if g.over {
		return nil
	}
	err := g.call.Refuse(ctx, errAbort)
	for err == nil {
		if _, err = g.call.Next(ctx); err == nil {
			err = g.call.Accept(ctx)
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errAbort) || g.client.Killed() {
		err = nil // destroy says whether anything is left
	}
	if err := errors.Join(err, g.destroy(), g.release()); err != nil {
		return fmt.Errorf("abort restore of container %s: %w", g.prepared.ID(), err)
	}
	return nil
}

// reapPatience is how long killed processes may take to be gone.
const reapPatience = 10 * time.Second

// destroy kills and reaps what there is of the tree. CRIU has killed it if it could; it could not if it was killed itself,
// and it never reaps its sibling.
func (a *attempt) destroy() error {
	_ = a.criuExpelled() // its number is to be its own until then
	err := errors.Join(a.killHeld(), a.client.Close(), a.client.ReapGroup())
	if a.pid <= 0 && a.call != nil {
		a.pid = a.call.RootPid()
	}
	if a.pid > 0 {
		err = errors.Join(err, killChild(a.pid))
	}
	return errors.Join(err, a.killPlaced())
}

// killHeld kills whoever stands under CRIU, frozen or not: when CRIU ends it lets go of them, and none is to run.
func (a *attempt) killHeld() error {
	var err error
	for _, dir := range a.prepared.CgroupPaths() {
		pids, listErr := cgroupPids(dir)
		err = errors.Join(err, listErr)
		// CRIU is in the container's cgroups for its cgroup namespace.
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == a.client.Pid() })
		err = errors.Join(err, killAll(pids))
	}
	return errors.Join(err, a.thaw())
}

// killChild kills the tree's root, and with a pid namespace all of it. It is this process's child: until it is reaped here
// nobody else can have its pid.
func killChild(pid int) error {
	deadline := time.Now().Add(reapPatience)
	for {
		switch got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); {
		case errors.Is(err, syscall.ECHILD) || got == pid:
			return nil
		case err != nil && !errors.Is(err, syscall.EINTR):
			return os.NewSyscallError("wait4", err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return os.NewSyscallError("kill", err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("restored process %d does not end", pid)
		}
		time.Sleep(time.Millisecond)
	}
}

// killPlaced kills whoever is in the container's cgroups: without a pid namespace the root's children live on.
func (a *attempt) killPlaced() error {
	deadline := time.Now().Add(reapPatience)
	for _, dir := range a.prepared.CgroupPaths() {
		for {
			pids, err := cgroupPids(dir)
			if err != nil {
				return err
			}
			if len(pids) == 0 {
				break
			}
			if err := killAll(pids); err != nil {
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("processes %v of cgroup %s do not end", pids, dir)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// killAll sends SIGKILL to each, gone or not.
func killAll(pids []int) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, os.NewSyscallError("kill", err))
		}
	}
	return errors.Join(errs...)
}

func cgroupPids(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
