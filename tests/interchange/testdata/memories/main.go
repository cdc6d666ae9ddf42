// Command memories has private memory of every kind, in itself and in two children, and the word of every page is known.
// Again and again it compares all of it and changes some, and prints "tick N", or "bad" and what differs. An argument is
// the size of the plain kind in MB.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const pageSize = 4096

func main() {
	if err := run(); err != nil {
		fmt.Printf("bad: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	megabytes, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	kinds, err := makeKinds(megabytes << 20)
	if err != nil {
		return err
	}
	if len(os.Args) > 2 { // a child: it answers every line
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			if err := round(kinds); err != nil {
				return err
			}
			fmt.Println("well")
		}
		return lines.Err()
	}
	var children []*child
	for range 2 {
		c, err := startChild()
		if err != nil {
			return err
		}
		children = append(children, c)
	}
	for n := 1; ; n++ {
		if err := round(kinds); err != nil {
			return err
		}
		for i, c := range children {
			if err := c.ask(); err != nil {
				return fmt.Errorf("child %d: %w", i, err)
			}
		}
		fmt.Printf("tick %d\n", n)
		time.Sleep(50 * time.Millisecond)
	}
}

// child is this program again, with memory of its own.
type child struct {
	in  io.Writer
	out *bufio.Reader
}

func startChild() (*child, error) {
	cmd := exec.Command("/proc/self/exe", "4", "child")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &child{in, bufio.NewReader(out)}, cmd.Start()
}

func (c *child) ask() error {
	if _, err := fmt.Fprintln(c.in, "check"); err != nil {
		return err
	}
	line, err := c.out.ReadString('\n')
	if line != "well\n" {
		return fmt.Errorf("says %q, %v", line, err)
	}
	return nil
}

// kind is an area whose pages are filled by their number and version; of version 0 they are zero.
type kind struct {
	name     string
	pages    []byte
	versions []uint32
	protect  int // between the rounds
}

func makeKinds(size int) ([]*kind, error) {
	const readWrite = syscall.PROT_READ | syscall.PROT_WRITE
	var kinds []*kind
	add := func(name string, bytes, flags, fd, protect int) (*kind, error) {
		pages, err := syscall.Mmap(fd, 0, bytes, readWrite, flags)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
		k := &kind{name, pages, make([]uint32, bytes/pageSize), protect}
		kinds = append(kinds, k)
		return k, nil
	}
	const anonymous = syscall.MAP_PRIVATE | syscall.MAP_ANON
	plain, err := add("plain", size, anonymous, -1, readWrite)
	if err != nil {
		return nil, err
	}
	huge, err := add("huge", 8<<20, anonymous, -1, readWrite)
	if err != nil {
		return nil, err
	}
	_ = syscall.Madvise(huge.pages, 14) // MADV_HUGEPAGE; a kernel without makes plain ones
	locked, err := add("locked", 1<<20, anonymous, -1, readWrite)
	if err != nil {
		return nil, err
	}
	_ = syscall.Mlock(locked.pages)
	if _, err := add("read-only", 1<<20, anonymous, -1, syscall.PROT_READ); err != nil {
		return nil, err
	}
	if _, err := add("unreadable", 1<<20, anonymous, -1, syscall.PROT_NONE); err != nil {
		return nil, err
	}
	if _, err := add("shared", 1<<20, syscall.MAP_SHARED|syscall.MAP_ANON, -1, readWrite); err != nil {
		return nil, err
	}
	for i := range 64 { // neighbours that stay apart
		if _, err := add("small", 3*pageSize, anonymous, -1, []int{readWrite, syscall.PROT_READ}[i%2]); err != nil {
			return nil, err
		}
	}
	f, err := os.Create(filepath.Join("/tmp", "mapped-"+strconv.Itoa(os.Getpid())))
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(1 << 20); err != nil {
		return nil, err
	}
	if _, err := add("private file", 1<<20, syscall.MAP_PRIVATE, int(f.Fd()), readWrite); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	for _, k := range kinds {
		for i := range k.versions {
			if k != plain || i%16 < 8 { // the rest was never touched
				k.write(i)
			}
		}
		if err := syscall.Mprotect(k.pages, k.protect); err != nil {
			return nil, err
		}
	}
	return kinds, nil
}

// round compares everything and changes a little.
func round(kinds []*kind) error {
	for _, k := range kinds {
		if err := syscall.Mprotect(k.pages, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
			return err
		}
		for i := range k.versions {
			if err := k.check(i); err != nil {
				return err
			}
		}
		for range 1 + len(k.versions)/100 {
			k.write(rand.IntN(len(k.versions)))
		}
		if k.name == "plain" { // some go back to be zero
			first := rand.IntN(len(k.versions) - 4)
			if err := syscall.Madvise(k.pages[first*pageSize:(first+4)*pageSize], syscall.MADV_DONTNEED); err != nil {
				return err
			}
			clear(k.versions[first : first+4])
		}
		if err := syscall.Mprotect(k.pages, k.protect); err != nil {
			return err
		}
	}
	return nil
}

func (k *kind) page(i int) []byte { return k.pages[i*pageSize : (i+1)*pageSize] }

func (k *kind) write(i int) {
	k.versions[i]++
	word := k.seed(i)
	for page := k.page(i); len(page) > 0; page = page[8:] {
		word = next(word)
		binary.NativeEndian.PutUint64(page, word)
	}
}

func (k *kind) check(i int) error {
	word := k.seed(i)
	for at, page := 0, k.page(i); at < pageSize; at += 8 {
		want := uint64(0)
		if k.versions[i] != 0 {
			word = next(word)
			want = word
		}
		if got := binary.NativeEndian.Uint64(page[at:]); got != want {
			return fmt.Errorf("%s page %d, version %d, byte %d: %#x, not %#x", k.name, i, k.versions[i], at, got, want)
		}
	}
	return nil
}

func (k *kind) seed(i int) uint64 { return uint64(i+1)<<32 | uint64(k.versions[i]) }

// next is xorshift64: never zero, and nothing a compressor can use.
func next(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	return x
}
