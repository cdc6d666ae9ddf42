package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// logFile is the file with the container's output. It is not safe for concurrent use but for offset: output locks it.
type logFile struct {
	path   string
	named  bool         // by another host, see OpenNamed
	file   *os.File     // nil while it can't be opened: it is tried again, and output is lost
	limit  int64        // at this size the file is renamed to path.1, and a new one begun; 0 is never
	size   int64        // at least the file's, or somebody else has written to it; with a limit only
	offset atomic.Int64 // bytes of output so far, lost ones too, on all hosts
	lost   int64        // bytes of output that are not in the file, and not yet told of there
	cause  error        // why they are lost
}

// openLog creates the file, readable by its owner only, or goes on at its end.
func openLog(c *Config) (*logFile, error) {
	l := &logFile{path: c.LogFile, named: c.Named, limit: c.LogLimit}
	l.offset.Store(c.Offset)
	file, err := l.open()
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l.file = file
	l.measure()
	return l, nil
}

func (l *logFile) open() (*os.File, error) {
	if l.named {
		return OpenNamed(l.path, os.O_CREATE)
	}
	// Not blocking: a fifo that nobody reads would stop here, and is refused below.
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode()&os.ModeCharDevice == 0 {
		err = fmt.Errorf("%q is not a regular file", l.path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// goOn is openLog for a container that runs already: it is not to end for its log. Where that can't be opened at its path any
// more, the file that was opened there before goes on, or else output is lost.
func goOn(c *Config) *logFile {
	l, err := openLog(c)
	if err != nil {
		l = &logFile{path: c.LogFile, named: c.Named, limit: c.LogLimit, cause: err}
		l.offset.Store(c.Offset)
		if l.file = standing(c.Log); l.file != nil {
			l.measure()
		}
	}
	l.lost = c.Lost
	return l
}

// standing is a descriptor of its own of a file that still has a name: nobody would find what comes into another.
func standing(file *os.File) *os.File {
	if file == nil {
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink == 0 {
		return nil
	}
	own, err := again(file)
	if err != nil {
		return nil
	}
	return own
}

// inheritLog is after Exec.
func inheritLog(c *Config) *logFile {
	l := &logFile{path: c.LogFile, named: c.Named, limit: c.LogLimit, lost: c.Lost, cause: errAway}
	l.offset.Store(c.Offset)
	if c.Inherited.Log != 0 {
		l.file = os.NewFile(uintptr(c.Inherited.Log), c.LogFile)
		l.measure()
	}
	return l
}

// errAway: the process before this one knew why.
var errAway = errors.New("the log could not be opened")

func (l *logFile) measure() {
	if info, err := l.file.Stat(); err == nil {
		l.size = info.Size()
	}
}

// write appends output. What the file does not take is dropped and counted, never waited for.
func (l *logFile) write(p []byte) {
	l.offset.Add(int64(len(p)))
	if l.file == nil {
		if err := l.reopen(); err != nil {
			l.lost += int64(len(p))
			l.cause = err
			return
		}
	}
	l.rotate()
	if l.tellLoss() != nil {
		l.lost += int64(len(p))
		return
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	if err != nil {
		l.lost += int64(len(p) - n)
		l.cause = err
	}
}

// rotate keeps a log in bounds that nobody else looks after. One that cannot be renamed goes on, and is tried again when it
// has doubled.
func (l *logFile) rotate() {
	if l.limit == 0 || l.size < l.limit {
		return
	}
	l.size = 0
	if os.Rename(l.path, l.path+".1") == nil {
		_ = l.reopen() // else it goes on under its new name
	}
}

// tellLoss writes the line about what was dropped, as soon as the file takes it whole.
func (l *logFile) tellLoss() error {
	if l.lost == 0 {
		return nil
	}
	cause := l.cause
	if path, ok := errors.AsType[*os.PathError](cause); ok {
		cause = path.Err
	}
	line := fmt.Appendf(nil, "\n[migrate: %d bytes of output were lost here: %v]\n", l.lost, cause)
	n, err := l.file.Write(line)
	if err != nil {
		return errors.Join(err, l.retract(n))
	}
	l.lost, l.cause = 0, nil
	return nil
}

// retract takes the last n bytes back: a part of a line that is tried again later.
func (l *logFile) retract(n int) error {
	if n == 0 {
		return nil
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	return l.file.Truncate(info.Size() - int64(n))
}

// reopen starts a new file under the same name, after a rotation has moved the old one away. On an error the old file
// is kept.
func (l *logFile) reopen() error {
	next, err := l.open()
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	old := l.file
	l.file = next
	l.measure()
	if old == nil {
		return nil
	}
	return old.Close()
}

func (l *logFile) close() error {
	if l.file == nil && l.lost == 0 {
		return nil
	}
	if l.file == nil {
		if err := l.reopen(); err != nil {
			return fmt.Errorf("%d bytes of output are lost: %w", l.lost, err)
		}
	}
	return errors.Join(l.tellLoss(), l.file.Close())
}

// absolute makes the log's path independent of the directory that the monitor leaves.
func absolute(path string) (string, error) {
	if path == "" {
		return "", errors.New("the monitor needs a log file")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find log: %w", err)
	}
	return path, nil
}
