package ptrace

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscallInstruction is SYSCALL, 0F 05.
var syscallInstruction = []byte{0x0f, 0x05}

// findInstruction is the address of a syscall instruction in the thread's address space: one of the vdso, where every
// program has some, or, where the vdso was unmapped, the one that the thread waits in.
func findInstruction(tid int, rip uint64) (uint64, error) {
	start, size, err := vdso(tid)
	if err != nil {
		return 0, err
	}
	if size > 0 {
		text := make([]byte, size)
		if readMemory(tid, start, text) == nil {
			if at := bytes.Index(text, syscallInstruction); at >= 0 {
				return start + uint64(at), nil
			}
		}
	}
	before := make([]byte, len(syscallInstruction))
	at := rip - uint64(len(before))
	if readMemory(tid, at, before) == nil && bytes.Equal(before, syscallInstruction) {
		return at, nil
	}
	return 0, ErrNoInstruction
}

// vdso is where the kernel's own code is mapped, size 0 for nowhere.
func vdso(tid int) (start, size uint64, err error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/maps", tid))
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if !strings.HasSuffix(lines.Text(), " [vdso]") {
			continue
		}
		var end uint64
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &start, &end); err != nil {
			return 0, 0, fmt.Errorf("read %q: %w", lines.Text(), err)
		}
		const most = 1 << 20
		return start, min(end-start, most), nil
	}
	return 0, 0, lines.Err()
}

// callable tells by an error why a call must not be done in the thread as it stands.
func (t *Thread) callable() error {
	// It may have got a filter since it was seized.
	if !t.unfiltered {
		filtered, err := hasSeccomp(t.tid)
		if err != nil {
			return err
		}
		if filtered {
			return ErrSeccomp
		}
	}
	// struct ptrace_sud_config: mode u64 | selector u64 | offset u64 | len u64; mode 0 is off (Linux 6.4)
	var dispatch [4]uint64
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, uintptr(t.tid),
		unsafe.Sizeof(dispatch), uintptr(unsafe.Pointer(&dispatch)), 0, 0)
	if errno == 0 && dispatch[0] != 0 {
		return ErrDispatch
	}
	if t.inCriticalSection() {
		return ErrCriticalSection
	}
	return nil
}

// inCriticalSection: the thread was interrupted inside a restartable sequence (rseq(2)). The kernel looks at the
// instruction pointer whenever the thread goes on; it would not find ours there and forget the sequence, which then would
// never be restarted.
func (t *Thread) inCriticalSection() bool {
	// struct ptrace_rseq_configuration: rseq_abi_pointer u64 | rseq_abi_size u32 | signature u32 | flags u32 | pad u32
	var config [24]byte
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_RSEQ_CONFIGURATION, uintptr(t.tid), unsafe.Sizeof(config),
		uintptr(unsafe.Pointer(&config)), 0, 0)
	area := binary.NativeEndian.Uint64(config[:])
	if errno != 0 || area == 0 {
		return false
	}
	// struct rseq: cpu_id_start u32 | cpu_id u32 | rseq_cs u64, which points to
	// struct rseq_cs: version u32 | flags u32 | start_ip u64 | post_commit_offset u64 | abort_ip u64
	var pointer [8]byte
	var section [32]byte
	if readMemory(t.tid, area+8, pointer[:]) != nil {
		return false
	}
	at := binary.NativeEndian.Uint64(pointer[:])
	if at == 0 || readMemory(t.tid, at, section[:]) != nil {
		return false
	}
	return t.regs.Rip-binary.NativeEndian.Uint64(section[8:]) < binary.NativeEndian.Uint64(section[16:])
}

// hasSeccomp tells whether system calls of the thread are filtered.
func hasSeccomp(tid int) (bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return false, err
	}
	_, mode, found := bytes.Cut(text, []byte("\nSeccomp:\t"))
	return found && !bytes.HasPrefix(mode, []byte("0")), nil
}

// dead: the thread is a zombie, or not even that.
func dead(tid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return true
	}
	_, state, _ := bytes.Cut(text, []byte("\nState:\t"))
	return bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X"))
}

func readMemory(tid int, addr uint64, buf []byte) error {
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}
	n, err := unix.ProcessVMReadv(tid, local, remote, 0)
	if err == nil && n < len(buf) {
		err = unix.EFAULT
	}
	return os.NewSyscallError("process_vm_readv", err)
}
