package preflight

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// A Mark says which file or directory this is: the peer that finds it under the same path has the very same one, and not a
// clone with equal inode numbers. It is an extended attribute, which changes neither names nor times nor content; where there
// can be none, a hidden file in the directory, or beside the file. The caller closes it when the peer has looked, which removes it.
type Mark struct {
	Token string
	dir   *fs.Dir
	name  string // in dir; "" is dir itself
	file  bool
}

// A token is 32 hexadecimal digits; the first half is in the name of what is left, so that two moves do not meet.
const (
	tokenLength = 32
	markPrefix  = "user.migrate-mark-"
	filePrefix  = ".migrate-mark-"
)

func markAttr(token string) string { return markPrefix + token[:tokenLength/2] }
func markFile(token string) string { return filePrefix + token[:tokenLength/2] }

func validMark(token string) bool {
	_, err := hex.DecodeString(token)
	return len(token) == tokenLength && err == nil
}

// errNoRoom: neither attribute nor file.
var errNoRoom = errors.New("it takes no mark")

// LeaveMark marks a directory or a regular file. An error says that it can't be, for being read-only for one.
func LeaveMark(path string) (*Mark, error) {
	token := make([]byte, tokenLength/2)
	_, _ = rand.Read(token) // never fails: it ends the program instead
	m := &Mark{Token: hex.EncodeToString(token)}
	var err error
	if m.dir, m.name, err = openParent(path); err != nil {
		return nil, err
	}
	if err := m.leave(); err != nil {
		return nil, errors.Join(fmt.Errorf("mark %s: %w", path, err), m.dir.Close())
	}
	return m, nil
}

func (m *Mark) leave() error {
	if m.name != "" && m.dir.IsOverlay() { // it would be copied as a whole
		return errNoRoom
	}
	m.sweep()
	value := m.Token + " " + strconv.FormatInt(time.Now().Unix(), 10)
	err := m.dir.SetXattr(m.name, markAttr(m.Token), []byte(value))
	if err == nil || errors.Is(err, syscall.EROFS) {
		return err
	}
	before, err := m.dir.Stat("")
	if err != nil {
		return err
	}
	file, err := m.dir.Create(markFile(m.Token))
	if err != nil {
		return err
	}
	m.file = true
	_, err = file.WriteString(m.Token)
	err = errors.Join(err, file.Sync(), file.Close(), m.dir.SetMtime("", before.Mtime))
	if err != nil {
		err = errors.Join(err, m.dir.Unlink(markFile(m.Token)))
	}
	return err
}

// forgotten is the age from which a mark is that of a process that was killed: no peer looks for so long.
const forgotten = time.Hour

// sweep removes forgotten marks.
func (m *Mark) sweep() {
	m.sweepFiles()
	names, _ := m.dir.Xattrs(m.name)
	for _, name := range names {
		if !strings.HasPrefix(name, markPrefix) {
			continue
		}
		value, err := m.dir.Xattr(m.name, name)
		_, stamp, _ := strings.Cut(string(value), " ")
		left, parseErr := strconv.ParseInt(stamp, 10, 64)
		if err == nil && parseErr == nil && time.Since(time.Unix(left, 0)) > forgotten {
			_ = m.dir.RemoveXattr(m.name, name)
		}
	}
}

// sweepFiles removes those that are files: of the name, the length and the age of one.
func (m *Mark) sweepFiles() {
	names, _ := m.dir.Names()
	for _, name := range names {
		if !strings.HasPrefix(name, filePrefix) || len(name) != len(markFile(m.Token)) {
			continue
		}
		st, err := m.dir.Stat(name)
		if err == nil && st.IsRegular() && st.Size == tokenLength && time.Since(time.Unix(st.Mtime.Sec, 0)) > forgotten {
			_ = m.unlink(name)
		}
	}
}

// unlink removes a file, and leaves the directory its time.
func (m *Mark) unlink(name string) error {
	before, err := m.dir.Stat("")
	if err != nil {
		return errors.Join(err, m.dir.Unlink(name))
	}
	if err := m.dir.Unlink(name); err != nil {
		return err
	}
	return m.dir.SetMtime("", before.Mtime)
}

// Close removes it. One that has gone with its file is none to complain of.
func (m *Mark) Close() error {
	var err error
	if m.file {
		err = m.unlink(markFile(m.Token))
	} else {
		err = m.dir.RemoveXattr(m.name, markAttr(m.Token))
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENODATA) {
		err = nil
	}
	return errors.Join(err, m.dir.Close())
}

// openParent opens a directory itself, and of anything else the directory that it is in.
func openParent(path string) (dir *fs.Dir, name string, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, "", err
	}
	if fs.IsDirectory(path) {
		dir, err = fs.OpenDir(path)
		return dir, "", err
	}
	dir, err = fs.OpenDir(filepath.Dir(path))
	return dir, strings.TrimSuffix(filepath.Base(path), "/"), err
}
