package preflight

import "syscall"

// Noun is what a file of a mode (st_mode) is, for messages.
func Noun(mode uint32) string {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return "directory"
	case syscall.S_IFREG:
		return "file"
	case syscall.S_IFLNK:
		return "link"
	case syscall.S_IFSOCK:
		return "socket"
	case syscall.S_IFIFO:
		return "fifo"
	}
	return "device"
}
