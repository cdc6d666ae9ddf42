package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// reboot ends everything on a host and empties what is in memory; journals, bundles and logs are on a disk.
func reboot(at side) func(context.Context, *cell) error {
	return func(ctx context.Context, c *cell) error {
		w, h := c.world, at(c.world)
		w.tls.cut() // nothing of a host that is down says goodbye
		w.ssh.cut()
		if err := w.killAll(h); err != nil {
			return err
		}
		if err := w.newBoot(h); err != nil {
			return err
		}
		return w.empty(ctx, h)
	}
}

// killAll kills the host's processes, containers' included, frozen or not. None of them sees another one die.
func (w *world) killAll(h *lab.Host) error {
	sshd, _ := os.ReadFile(root(h, "/run/sshd.pid"))
	stays := []string{strconv.Itoa(h.Holder()), strings.TrimSpace(string(sshd))}
	w.standStill(h)
	defer w.thaw(h)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pids := slices.DeleteFunc(h.Pids(), func(pid string) bool { return slices.Contains(stays, pid) })
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v survive a reboot: %s", pids, said(pids))
		}
		for _, text := range pids {
			pid, _ := strconv.Atoi(text)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		w.thaw(h)
	}
}

// standStill freezes all of the host, as far as that goes at once: who is traced does not move anyhow.
func (w *world) standStill(h *lab.Host) {
	for top := range strings.Lines(w.tops()) {
		dir := filepath.Join(strings.TrimSpace(top), h.Name[len(h.Name)-1:])
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("FROZEN"), 0)
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("1"), 0)
	}
	time.Sleep(10 * time.Millisecond)
}

// said is what the kernel says of processes.
func said(pids []string) string {
	var all strings.Builder
	for _, pid := range pids {
		stat, _ := os.ReadFile("/proc/" + pid + "/stat")
		all.Write(stat[:min(len(stat), 60)])
		all.WriteString("; ")
	}
	return all.String()
}

// thaw lets the killed die.
func (w *world) thaw(h *lab.Host) {
	dirs, _ := w.cgroups(h)
	for top := range strings.Lines(w.tops()) {
		dirs = append(dirs, filepath.Join(strings.TrimSpace(top), h.Name[len(h.Name)-1:]))
	}
	for _, dir := range dirs {
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
}

// empty removes what no reboot leaves.
func (w *world) empty(ctx context.Context, h *lab.Host) error {
	now, err := w.count(h)
	if err != nil {
		return err
	}
	var script strings.Builder
	for _, thing := range now.beyond(w.clean[h]) {
		switch kind, name, _ := strings.Cut(thing, " "); kind {
		case "mount":
			fmt.Fprintf(&script, "umount -l '%s'\n", name)
		case "link":
			fmt.Fprintf(&script, "ip link del dev '%s'\n", name)
		case "file":
			fmt.Fprintf(&script, "rm -rf '%s'\n", name)
		}
	}
	script.WriteString("rm -rf /run/migrate/* /run/migrate-handover/* /dev/shm/*\n")
	_, err = h.Run(ctx, "sh", "-c", script.String())
	dirs, listErr := w.cgroups(h)
	err = errors.Join(err, listErr)
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if !slices.Contains(w.clean[h], "cgroup "+dir) {
			err = errors.Join(err, removeCgroup(dir))
		}
	}
	return err
}

// removeCgroup waits for the dead to be reaped.
func removeCgroup(dir string) (err error) {
	for range 500 {
		if err = os.Remove(dir); !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// bootAgain: the host is back, and so is serve.
func bootAgain(ctx context.Context, c *cell) error {
	c.world.tls.restore()
	c.world.ssh.restore()
	return c.world.serve(ctx)
}

// fillSpool leaves no byte where the host's spool, its state and its sockets are.
func fillSpool(at side) func(context.Context, *cell) error {
	return func(ctx context.Context, c *cell) (err error) {
		for range 10 { // what has been written meanwhile is more than a size that was right before
			var s syscall.Statfs_t
			if err := syscall.Statfs(root(at(c.world), "/run"), &s); err != nil {
				return err
			}
			used := (s.Blocks - s.Bfree) * uint64(s.Bsize) >> 10
			if _, err = at(c.world).Run(ctx, "mount", "-o", fmt.Sprintf("remount,size=%dk", max(used, 4)), "/run"); err == nil {
				return nil
			}
		}
		return err
	}
}

func emptySpool(at side) func(context.Context, *cell) error {
	return func(ctx context.Context, c *cell) error {
		_, err := at(c.world).Run(ctx, "mount", "-o", "remount,size=50%", "/run")
		return err
	}
}

// limitMemory takes from the host what can be taken back, and lets it have no more.
func limitMemory(at side) func(context.Context, *cell) error {
	return func(_ context.Context, c *cell) error {
		h := at(c.world)
		for step := int64(8 << 20); step >= 64<<10; {
			if err := memoryLimit(h, strconv.FormatInt(h.MemoryBytes()-step, 10)); errors.Is(err, errNothing) {
				return err
			} else if err != nil {
				step /= 2
			}
		}
		return nil
	}
}

func unlimitMemory(at side) func(context.Context, *cell) error {
	return func(ctx context.Context, c *cell) error {
		if err := memoryLimit(at(c.world), "-1"); err != nil {
			return err
		}
		return c.world.serve(ctx)
	}
}

func memoryLimit(h *lab.Host, limit string) error {
	file := h.MemoryLimitFile()
	if file == "" {
		return errNothing
	}
	if filepath.Base(file) == "memory.max" && limit == "-1" {
		limit = "max"
	}
	return os.WriteFile(file, []byte(limit), 0)
}

// setClocks sets both hosts' wall clocks back; what measures time does not go by them.
func setClocks(_ context.Context, c *cell) error {
	var err error
	for _, host := range []string{c.world.A.Name, c.world.B.Name} {
		err = errors.Join(err, os.WriteFile(filepath.Join(c.world.points, "clock-"+host), []byte("-1h"), 0o644))
	}
	return err
}
