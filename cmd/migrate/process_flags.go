package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// processFlags are those that every verb has which starts a process in a container.
type processFlags struct {
	consoleSocket string
	pidfdSocket   string
	pidFile       string
	preserveFDs   int
	detach        bool
}

func (f *processFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.consoleSocket, "console-socket", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal")
	flags.StringVar(&f.pidfdSocket, "pidfd-socket", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the process")
	flags.StringVar(&f.pidFile, "pid-file", "", "specify the file to write the process id to")
	flags.IntVar(&f.preserveFDs, "preserve-fds", 0, "pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)")
}

func (f *processFlags) addDetach(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.detach, "detach", "d", false, "detach from the container's process")
}

// check refuses terminals that nobody would hold.
func (f *processFlags) check(terminal bool) error {
	if f.detach && terminal && f.consoleSocket == "" {
		return errors.New("cannot allocate tty if runc will detach without setting console socket") // a text that is searched for
	}
	if (!f.detach || !terminal) && f.consoleSocket != "" {
		return errors.New("cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// absolutePidFile is where the pid goes wherever the process is by then.
func (f *processFlags) absolutePidFile() (string, error) {
	if f.pidFile == "" {
		return "", nil
	}
	return filepath.Abs(f.pidFile)
}

// dial connects to a socket that takes a descriptor; nil for no path.
func dial(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("connect to socket: %w", err)
	}
	defer conn.Close()
	return conn.File()
}

// bundleFlags are those that every verb has which makes a container.
type bundleFlags struct {
	bundle       string
	noPivot      bool
	noNewKeyring bool
	network      string
}

func (f *bundleFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.bundle, "bundle", "b", "", "path to the root of the bundle directory, defaults to the current directory")
	flags.BoolVar(&f.noPivot, "no-pivot", false, "do not use pivot root to jail process inside rootfs. This should be used whenever the rootfs is on top of a ramdisk")
	flags.BoolVar(&f.noNewKeyring, "no-new-keyring", false, "do not create a new session keyring for the container. This will cause the container to inherit the calling processes session key")
	flags.StringVar(&f.network, "network", "", "join a bridge: bridge=BR,address=CIDR[,gateway=IP][,mac=MAC][,mtu=N][,interface=NAME]")
}

func (f *bundleFlags) plan() (*runtime.Plan, error) {
	bundle := f.bundle
	if bundle == "" {
		bundle = "."
	}
	o := &runtime.PlanOptions{NoPivot: f.noPivot, NoNewKeyring: f.noNewKeyring}
	if f.network != "" {
		network, err := link.Parse(f.network)
		if err != nil {
			return nil, err
		}
		o.Network = network
	}
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		return nil, err
	}
	return runtime.Parse(bundle, spec, o)
}

// extraFiles are the descriptors from 3 on that the container gets: first those of systemd's socket activation, when they
// are meant for us, then preserve more.
func extraFiles(preserve int) (files []*os.File, listening int, err error) {
	const first = 3
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err == nil && pid == os.Getpid() {
		listening, _ = strconv.Atoi(os.Getenv("LISTEN_FDS"))
	}
	for fd := first; fd < first+listening+preserve; fd++ {
		if _, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
			return nil, 0, fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", fd-first-listening, preserve, err)
		}
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("preserved-fd-%d", fd)))
	}
	return files, listening, nil
}
