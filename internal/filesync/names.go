package filesync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// names keeps the paths of a tree's inodes in an unnamed temporary file, a chain for each inode: hard links and renames are
// recognised by it, without a map of the whole tree in memory.
//
//	entry    previous u64 | length u16 | path          an offset is that of the entry plus one, 0 ends the chain
type names struct {
	file *os.File
	size uint64 // written to the file
	buf  []byte // to be written after it
	got  []byte // for reading
}

const (
	nameHead    = 10
	shortName   = 256 // with its head
	namesBuffer = 256 << 10
	maxNames    = 64 << 10 // in one chain: ext4 allows 65000 links
)

func (n *names) reset(dir string) error {
	if err := n.close(); err != nil {
		return err
	}
	if dir == "." {
		dir = ""
	}
	f, err := os.CreateTemp(dir, "migrate-names-*")
	if err != nil {
		return fmt.Errorf("make names file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return fmt.Errorf("make names file: %w", err)
	}
	*n = names{file: f, buf: n.buf[:0], got: n.got}
	return nil
}

func (n *names) add(prev uint64, path string) (uint64, error) {
	off := n.size + uint64(len(n.buf))
	n.buf = binary.LittleEndian.AppendUint64(n.buf, prev)
	n.buf = binary.LittleEndian.AppendUint16(n.buf, uint16(len(path)))
	n.buf = append(n.buf, path...)
	if len(n.buf) >= namesBuffer {
		return off + 1, n.flush()
	}
	return off + 1, nil
}

func (n *names) flush() error {
	if len(n.buf) == 0 || n.file == nil {
		return nil
	}
	if _, err := n.file.WriteAt(n.buf, int64(n.size)); err != nil {
		return fmt.Errorf("write names file: %w", err)
	}
	n.size += uint64(len(n.buf))
	n.buf = n.buf[:0]
	return nil
}

// list returns a chain's paths, the one that was added first first.
func (n *names) list(at uint64) ([]string, error) {
	var list []string
	for at != 0 && len(list) < maxNames {
		if at > n.size {
			if err := n.flush(); err != nil {
				return nil, err
			}
		}
		path, prev, err := n.read(int64(at - 1))
		if err != nil {
			return nil, fmt.Errorf("read names file: %w", err)
		}
		list, at = append(list, path), prev
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list, nil
}

// read returns the entry at an offset. Most are short.
func (n *names) read(off int64) (path string, prev uint64, err error) {
	if n.got == nil {
		n.got = make([]byte, nameHead+maxPath)
	}
	for _, buf := range [][]byte{n.got[:shortName], n.got} {
		got, err := n.file.ReadAt(buf, off)
		if got < nameHead {
			return "", 0, err
		}
		end := nameHead + int(binary.LittleEndian.Uint16(buf[8:]))
		if end <= got {
			return string(buf[nameHead:end]), binary.LittleEndian.Uint64(buf), nil
		}
		if got < len(buf) {
			return "", 0, err
		}
	}
	return "", 0, errors.New("a path that is too long")
}

func (n *names) close() error {
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.file = nil
	return err
}
