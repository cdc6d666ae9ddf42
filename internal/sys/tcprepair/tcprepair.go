// Package tcprepair ends TCP_REPAIR on sockets of other processes. CRIU switches a connection to repair while it saves it;
// when it is killed then, nobody switches it back, and the connection stays dead to its program.
package tcprepair

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"golang.org/x/sys/unix"
)

// EndAll ends repair on every TCP socket that one of the processes holds, and returns on how many. The processes must be
// frozen. It needs PTRACE_MODE_ATTACH on them, and CAP_NET_ADMIN. Linux 5.6, for pidfd_getfd.
func EndAll(pids []int) (int, error) {
	seen := map[string]bool{} // by inode: forks share sockets
	ended := 0
	for _, pid := range pids {
		n, err := endProcess(pid, seen)
		ended += n
		if err != nil {
			return ended, fmt.Errorf("end tcp repair in process %d: %w", pid, err)
		}
	}
	return ended, nil
}

func endProcess(pid int, seen map[string]bool) (int, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	process, err := pidfd.Open(pid)
	if err != nil {
		return 0, err
	}
	defer process.Close()
	ended := 0
	for _, entry := range entries {
		target, err := os.Readlink(dir + "/" + entry.Name())
		if err != nil {
			return ended, err
		}
		if !strings.HasPrefix(target, "socket:") || seen[target] {
			continue
		}
		seen[target] = true
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			return ended, err
		}
		repaired, err := endSocket(int(process.Fd()), number)
		if err != nil {
			return ended, fmt.Errorf("descriptor %d: %w", number, err)
		}
		if repaired {
			ended++
		}
	}
	return ended, nil
}

func endSocket(pidfd, number int) (bool, error) {
	fd, err := unix.PidfdGetfd(pidfd, number, 0)
	if err != nil {
		return false, os.NewSyscallError("pidfd_getfd", err)
	}
	defer func() { _ = unix.Close(fd) }()
	repair, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
	if err != nil || repair == 0 { // not TCP, or not touched
		return false, nil // every other kind of socket refuses the option
	}
	// Off, with a window probe: it makes the peer repeat what it may have sent, unanswered, meanwhile. The queues were only
	// peeked at, and which of them CRIU had selected ends with the mode.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF); err != nil {
		return false, os.NewSyscallError("setsockopt TCP_REPAIR", err)
	}
	// The kernel clears SO_REUSEADDR when repair ends (net/ipv4/tcp.c, TCP_REPAIR), and what it was is lost. Servers set it
	// on their listening sockets and the accepted ones inherit it: without it a server that restarts could not bind its port.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	return true, errors.Join(os.NewSyscallError("setsockopt SO_REUSEADDR", err))
}
