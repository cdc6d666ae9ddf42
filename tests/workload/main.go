// Command workload is what the end-to-end tests and the bench move: programs that can tell whether a move changed anything.
//
//	workload tree      processes and threads joined by pipes, unix sockets, shared memory and a pty
//	workload files     files written, renamed, linked and deleted without a pause
//	workload deleted N DIR...  files without a name in each directory, one of N MB, written by two processes
//	workload memory N  N MB of incompressible memory; --rate R random pages rewritten a second, --shared, --half, --forks N
//	workload kinds     every kind of memory under constant change, in processes and threads that come and go
//	workload sockets   sockets of each kind with data on the way, and the host's names; one argument: where to send datagrams
//	workload beat N    as memory N, with an open file that has no name, and each millisecond the time goes into the file /beat
//	workload lines     numbered lines on standard output and error
//
// Each but lines keeps in its memory what the world should look like. On TCP port 7000 it answers every line "check" with "ok N", N
// counting the answers on that connection, or with what differs; beat answers "write" with "ok N", N counting these over all
// connections. On UDP port 7000 it sends every datagram back, one of 16
// bytes with how many pages it has written in the last eight, if it counts them.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

const port = 7000

// checker is a workload: check compares the world with what it should be.
type checker interface {
	check() error
}

// writer is a workload that counts what it is told to write.
type writer interface {
	write() (int, error)
}

// counter is a workload that knows how much it has done.
type counter interface {
	count() uint64
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want a verb: tree, files, deleted, memory, kinds, sockets, beat or lines")
	}
	switch args[0] {
	case "tree":
		tree, err := startTree()
		if err != nil {
			return err
		}
		return answer(tree)
	case "files":
		files, err := startFiles("/data")
		if err != nil {
			return err
		}
		return answer(files)
	case "deleted":
		deleted, err := startDeleted(args[1:])
		if err != nil {
			return err
		}
		return answer(deleted)
	case "memory":
		o, err := memoryFlags(args[1:])
		if err != nil {
			return err
		}
		memory, err := startMemory(o)
		if err != nil {
			return err
		}
		return answer(memory)
	case "kinds":
		kinds, err := startKinds(kindsFlags(args[1:]))
		if err != nil {
			return err
		}
		return answer(kinds)
	case "beat":
		beat, err := startBeat(args[1:])
		if err != nil {
			return err
		}
		return answer(beat)
	case "sockets":
		sockets, err := startSockets(args[1:])
		if err != nil {
			return err
		}
		return answer(sockets)
	case "lines":
		return lines(args[1:])
	case "member":
		return member(args[1], args[2:]...)
	case "true":
		return nil
	}
	return fmt.Errorf("unknown verb %q", args[0])
}

// answer serves checks for ever.
func answer(c checker) error {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		return err
	}
	counts, _ := c.(counter)
	go echo(udp, counts)
	listener, err := listen(":" + strconv.Itoa(port))
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(conn, c)
	}
}

func serve(conn io.ReadWriteCloser, c checker) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for n := 1; lines.Scan(); n++ {
		said := n
		var err error
		writes, ok := c.(writer)
		switch {
		case lines.Text() == "check":
			err = c.check()
		case lines.Text() == "write" && ok:
			said, err = writes.write()
		default:
			return
		}
		text := fmt.Sprintf("ok %d\n", said)
		if err != nil {
			text = fmt.Sprintf("bad %s\n", strings.ReplaceAll(err.Error(), "\n", ": "))
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

func echo(conn *net.UDPConn, counts counter) {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if counts != nil && n == 16 {
			binary.BigEndian.PutUint64(buf[8:], counts.count())
		}
		// A datagram that cannot be sent is lost, as on any network.
		_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
	}
}
