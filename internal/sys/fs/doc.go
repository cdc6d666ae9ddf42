// Package fs wraps the system calls by which a directory tree is read and written without ever leaving it.
//
// A Dir is a held directory; every call takes one path component (or, for Beneath, a relative path that the kernel
// resolves with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS), so nobody who swaps a directory for a
// symlink at the wrong moment can lead it astray. Linux 5.6 is needed for openat2.
//
// Extended attributes and modes of what cannot be opened (symlinks, devices, sockets) are reached through
// /proc/self/fd, for the kernel has setxattrat and fchmodat2 only since 6.13 and 6.6.
package fs
