package terminal

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Size is of a terminal's window, in characters.
type Size struct {
	Rows, Columns uint16
}

// ReadSize asks a terminal, either end of it. The file stays in its mode: (*os.File).Fd would make it blocking.
func ReadSize(file syscall.Conn) (Size, error) {
	var ws *unix.Winsize
	err := control(file, func(fd int) (err error) {
		ws, err = unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		return os.NewSyscallError("ioctl TIOCGWINSZ", err)
	})
	if err != nil {
		return Size{}, fmt.Errorf("read size of terminal: %w", err)
	}
	return Size{ws.Row, ws.Col}, nil
}

// Resize gives a terminal another size: when it differs, the processes in its foreground get SIGWINCH.
func Resize(file syscall.Conn, to Size) error {
	err := control(file, func(fd int) error {
		err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: to.Rows, Col: to.Columns})
		return os.NewSyscallError("ioctl TIOCSWINSZ", err)
	})
	if err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}

func control(file syscall.Conn, do func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}
