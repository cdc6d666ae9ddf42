// Command probe prints what only a system call tells about a process, for tests inside containers.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// Numbers of system calls are amd64's, or arm64's where the tests run there.
func main() {
	runtime.LockOSThread()
	if len(os.Args) < 2 {
		fail("usage: probe NAME [ARGUMENT]")
	}
	arg := ""
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	switch os.Args[1] {
	case "scheduler":
		scheduler()
	case "ioprio":
		ioprio()
	case "mempolicy":
		mempolicy()
	case "call": // the errno of a system call with no arguments
		number, err := strconv.Atoi(arg)
		check(err)
		_, _, errno := syscall.RawSyscall(uintptr(number), 0, 0, 0)
		fmt.Println(errno)
	case "notify": // one datagram to $NOTIFY_SOCKET
		notify(arg)
	case "clock": // seconds of CLOCK_MONOTONIC and CLOCK_BOOTTIME
		clock(1)
		clock(7)
	case "listen": // the address of an inherited listening socket
		listener, err := net.FileListener(os.NewFile(3, "3"))
		check(err)
		fmt.Println(listener.Addr())
	case "wait": // until it is killed
		time.Sleep(time.Hour)
	default:
		fail("unknown probe " + os.Args[1])
	}
}

func fail(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

// scheduler prints policy, flags, nice, priority of struct sched_attr.
func scheduler() {
	number := map[string]uintptr{"amd64": 315, "arm64": 275}[runtime.GOARCH] // sched_getattr
	var attr struct {
		size, policy              uint32
		flags                     uint64
		nice                      int32
		priority                  uint32
		runtime, deadline, period uint64
		utilMin, utilMax          uint32
	}
	_, _, errno := syscall.RawSyscall6(number, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0, 0, 0)
	if errno != 0 {
		fail(errno.Error())
	}
	fmt.Println(attr.policy, attr.flags, attr.nice, attr.priority)
}

// ioprio prints class and priority.
func ioprio() {
	number := map[string]uintptr{"amd64": 252, "arm64": 31}[runtime.GOARCH] // ioprio_get
	value, _, errno := syscall.RawSyscall(number, 1, 0, 0)
	if errno != 0 {
		fail(errno.Error())
	}
	fmt.Println(value>>13, value&0x1fff)
}

// mempolicy prints mode (with its flags) and the mask of nodes.
func mempolicy() {
	number := map[string]uintptr{"amd64": 239, "arm64": 236}[runtime.GOARCH] // get_mempolicy
	var mode int32
	var nodes [16]uint64
	_, _, errno := syscall.RawSyscall6(number, uintptr(unsafe.Pointer(&mode)), uintptr(unsafe.Pointer(&nodes)), 1024, 0, 0, 0)
	if errno != 0 {
		fail(errno.Error())
	}
	fmt.Printf("%#x %d\n", mode, nodes[0])
}

func notify(text string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	check(err)
	_, err = conn.Write([]byte(text))
	check(err)
}

func clock(id uintptr) {
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		fail(errno.Error())
	}
	fmt.Println(ts.Sec)
}
