package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// NotifyOOM signals each time the kernel kills for lack of memory. The channel is closed when the cgroup is gone or
// empty (v2), or ctx ends.
func (g *Group) NotifyOOM(ctx context.Context) (<-chan struct{}, error) {
	dir := g.manager.Path("memory")
	if dir == "" {
		return nil, errors.New("memory controller missing")
	}
	if V2() {
		return watchEvents(ctx, dir)
	}
	return registerEvent(ctx, dir, "memory.oom_control", "")
}

// NotifyMemoryPressure signals when the container's memory is under pressure: "low", "medium" or "critical". cgroup v1
// only: v2 has no such levels.
func (g *Group) NotifyMemoryPressure(ctx context.Context, level string) (<-chan struct{}, error) {
	switch level {
	case "low", "medium", "critical":
	default:
		return nil, fmt.Errorf("invalid pressure level %q", level)
	}
	dir := g.manager.Path("memory")
	switch {
	case dir == "":
		return nil, errors.New("memory controller missing")
	case V2():
		return nil, errors.New("memory pressure levels need cgroup v1")
	}
	return registerEvent(ctx, dir, "memory.pressure_level", level)
}

// registerEvent is cgroup v1's way: an eventfd is written whenever the event happens, and when the cgroup is removed.
func registerEvent(ctx context.Context, dir, name, arg string) (<-chan struct{}, error) {
	source, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) // non-blocking: Close then ends a Read
	if err != nil {
		_ = source.Close()
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	events := os.NewFile(uintptr(fd), "eventfd")
	control := filepath.Join(dir, "cgroup.event_control")
	request := strings.TrimSpace(fmt.Sprintf("%d %d %s", fd, source.Fd(), arg))
	if err := os.WriteFile(control, []byte(request), 0); err != nil {
		return nil, errors.Join(err, events.Close(), source.Close())
	}
	return forward(ctx, events, source, func() (bool, bool) {
		var count [8]byte
		if _, err := events.Read(count[:]); err != nil {
			return false, true
		}
		_, err := os.Lstat(control)
		return true, err != nil
	}), nil
}

// watchEvents is cgroup v2's way: memory.events changes with each kill, cgroup.events when the last process is gone.
func watchEvents(ctx context.Context, dir string) (<-chan struct{}, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	memory, err := unix.InotifyAddWatch(fd, filepath.Join(dir, "memory.events"), unix.IN_MODIFY)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch memory.events: %w", err), events.Close())
	}
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, "cgroup.events"), unix.IN_MODIFY); err != nil {
		return nil, errors.Join(fmt.Errorf("watch cgroup.events: %w", err), events.Close())
	}
	kills := oomKills(dir)
	return forward(ctx, events, events, func() (bool, bool) {
		var buf [16 * unix.SizeofInotifyEvent]byte // events of files watched by themselves carry no name
		n, err := events.Read(buf[:])
		if err != nil {
			return false, true
		}
		happened := false
		for at := 0; at+unix.SizeofInotifyEvent <= n; at += unix.SizeofInotifyEvent {
			if int((*unix.InotifyEvent)(unsafe.Pointer(&buf[at])).Wd) == memory {
				now := oomKills(dir)
				happened = happened || now != kills
				kills = now
			}
		}
		text, err := cgroups.ReadFile(dir, "cgroup.events")
		return happened, err != nil || strings.Contains(text, "populated 0")
	}), nil
}

// oomKills returns the line of memory.events that counts kills.
func oomKills(dir string) string {
	text, _ := cgroups.ReadFile(dir, "memory.events")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "oom_kill ") {
			return line
		}
	}
	return ""
}

// forward turns next, which blocks and returns (happened, over), into a channel, and owns both files.
func forward(ctx context.Context, events, source *os.File, next func() (bool, bool)) <-chan struct{} {
	out := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	go func() {
		defer close(out)
		defer func() {
			stop()
			_ = events.Close()
			_ = source.Close()
		}()
		for {
			happened, over := next()
			if over {
				return
			}
			if !happened {
				continue
			}
			select {
			case out <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
