//go:build (amd64 || arm64) && cgo

// Package limits lends another program a way to read the resource limits of other users' processes.
//
// prlimit(2) asks for CAP_SYS_RESOURCE where the other process belongs to somebody else, also to read, and root on a host that
// was not given it cannot. What it refuses is in /proc/PID/limits for anybody to read. CRIU knows the one way only, for all
// processes that it saves, and cannot be told of the other.
//
// So it gets a syscall(3) of ours, in a shared library to be loaded before libc: that asks the kernel as libc's does, and
// where prlimit says EPERM to a question it reads the file. The code (lent.c) is compiled into this program and copied into a
// library, which is put together here:
//
//	0      ELF header, program headers, names, symbols      read, execute
//	code   lent.c's section
//	table  address of __errno_location, dynamic section     read, write
package limits

// #cgo CFLAGS: -Wall -Wextra -std=gnu11 -Os -fno-stack-protector -DTABLE=0xf000
// #include <stddef.h>
// extern char __start_migrate_limits[], __stop_migrate_limits[];
// extern long migrate_lent_syscall(long, long, long, long, long, long, long);
// static size_t size(void) { return __stop_migrate_limits - __start_migrate_limits; }
// static size_t entry(void) { return (char *)migrate_lent_syscall - __start_migrate_limits; }
import "C"

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Supported tells whether there is such a library for this processor.
const Supported = true

// Where things are in the library. A page may have 64 KiB.
const (
	code  = 0x1000
	table = 0x10000 // code + TABLE
)

// Library makes it, as a file in memory that nobody can change: name it in LD_PRELOAD by a path in /proc. The caller closes it,
// once it is loaded or handed down.
func Library() (*os.File, error) {
	const name = "migrate-limits"
	// Where vm.memfd_noexec is 2 nothing else is allowed; it can be mapped to be executed all the same. Kernels before 6.3 do not
	// know the flag.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make library: %w", os.NewSyscallError("memfd_create", err))
	}
	file := os.NewFile(uintptr(fd), name)
	bytes, err := library()
	if err == nil {
		_, err = file.Write(bytes)
	}
	if err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("make library: %w", err)
	}
	return file, nil
}

// library is its bytes.
func library() ([]byte, error) {
	machine, relocation := elf.EM_X86_64, uint64(elf.R_X86_64_GLOB_DAT)
	if runtime.GOARCH == "arm64" {
		machine, relocation = elf.EM_AARCH64, uint64(elf.R_AARCH64_GLOB_DAT)
	}
	lent := unsafe.Slice((*byte)(unsafe.Pointer(&C.__start_migrate_limits)), int(C.size()))
	if code+len(lent) > table {
		return nil, fmt.Errorf("the code takes %d bytes, and has room for %d", len(lent), table-code)
	}

	const names = "\x00syscall\x00__errno_location\x00"
	const headers, pointer, symbol, relocated, dynamics = 64 + 4*56, 8, 24, 24, 9
	const strings, symbols = headers, headers + 32 // as names take, and an alignment of 8
	const relocations = symbols + 3*symbol
	const hash = relocations + relocated
	const dynamic = table + pointer
	const size = pointer + dynamics*16
	out := make([]byte, table+size)
	put := func(at int, values ...any) {
		var b bytes.Buffer
		for _, value := range values {
			_ = binary.Write(&b, binary.LittleEndian, value) // fixed sizes, into memory
		}
		copy(out[at:], b.Bytes())
	}
	put(0, elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 4, Shentsize: 64,
	})
	readable, writable := uint32(elf.PF_R|elf.PF_X), uint32(elf.PF_R|elf.PF_W)
	put(64,
		segment(elf.PT_LOAD, readable, 0, uint64(code+len(lent)), table),
		segment(elf.PT_LOAD, writable, table, size, table),
		segment(elf.PT_DYNAMIC, writable, dynamic, size-pointer, pointer),
		segment(elf.PT_GNU_STACK, writable, 0, 0, 0x10))
	put(strings, []byte(names))
	function := elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC)
	put(symbols, elf.Sym64{},
		elf.Sym64{Name: 1, Info: function, Shndx: 1, Value: uint64(code + int(C.entry())), Size: uint64(len(lent))},
		elf.Sym64{Name: 9, Info: function})
	put(relocations, elf.Rela64{Off: table, Info: 2<<32 | relocation})
	// One bucket of names, and from each symbol to the next.
	put(hash, []uint32{1, 3, 1, 0, 2, 0})
	put(code, lent)
	put(table, uint64(0))
	put(dynamic, []elf.Dyn64{
		{Tag: int64(elf.DT_HASH), Val: hash},
		{Tag: int64(elf.DT_STRTAB), Val: strings},
		{Tag: int64(elf.DT_STRSZ), Val: uint64(len(names))},
		{Tag: int64(elf.DT_SYMTAB), Val: symbols},
		{Tag: int64(elf.DT_SYMENT), Val: symbol},
		{Tag: int64(elf.DT_RELA), Val: relocations}, //nolint:misspell // ELF's own name
		{Tag: int64(elf.DT_RELASZ), Val: relocated},
		{Tag: int64(elf.DT_RELAENT), Val: relocated},
		{Tag: int64(elf.DT_NULL)},
	})
	return out, nil
}

func segment(kind elf.ProgType, flags uint32, at, size, align uint64) elf.Prog64 {
	return elf.Prog64{Type: uint32(kind), Flags: flags, Off: at, Vaddr: at, Paddr: at, Filesz: size, Memsz: size, Align: align}
}
