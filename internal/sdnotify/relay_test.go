package sdnotify

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manage is a service manager; what it reads comes to the channel. It lets go of a barrier when it has read it.
func manage(t *testing.T, name string) <-chan string {
	t.Helper()
	messages, _ := mortal(t, name)
	return messages
}

// mortal is a manager that ends when it is told to.
func mortal(t *testing.T, name string) (_ <-chan string, end func()) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	end = func() { conn.Close(); _ = os.Remove(name) }
	t.Cleanup(end)
	messages := make(chan string, 100)
	go func() {
		for {
			buf, oob := make([]byte, 4096), make([]byte, 100)
			n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			messages <- string(buf[:n])
			if controls, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(controls) > 0 {
				fds, _ := syscall.ParseUnixRights(&controls[0])
				for _, fd := range fds {
					_ = syscall.Close(fd)
				}
			}
		}
	}()
	return messages, end
}

func say(t *testing.T, path, text string) {
	t.Helper()
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestServiceManagerHearsWhatIsTrueOutside(t *testing.T) {
	for name, host := range map[string]string{"path": filepath.Join(t.TempDir(), "host"), "abstract": "@sdnotify-test-" + filepath.Base(t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			messages := manage(t, host)
			path := filepath.Join(t.TempDir(), "notify.sock")
			r, err := Listen(path, host, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.Start(4711)
			say(t, path, "STATUS=warming up\nFDSTORE=1\nMAINPID=1")
			say(t, path, "MAINPID=7")
			say(t, path, "STATUS=here\nREADY=1\n")
			if err := r.AwaitReady(t.Context()); err != nil {
				t.Error(err)
			}
			say(t, path, "READY=1\nSTOPPING=1")
			for _, want := range []string{"STATUS=warming up\n", "STATUS=here\nREADY=1\nMAINPID=4711\n", "BARRIER=1", "READY=1\nSTOPPING=1\n"} {
				if got := <-messages; got != want {
					t.Errorf("the service manager read %q, want %q", got, want)
				}
			}
		})
	}
}

func TestWaitForReadyEndsWithItsContext(t *testing.T) {
	host := filepath.Join(t.TempDir(), "host")
	manage(t, host)
	r, err := Listen(filepath.Join(t.TempDir(), "notify.sock"), host, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Start(1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.AwaitReady(ctx); err == nil {
		t.Error("it was ready")
	}
}

func TestSocketMayHaveALongPathAndATwinOfYesterday(t *testing.T) {
	host := filepath.Join(t.TempDir(), "host")
	manage(t, host)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := Listen(filepath.Join(dir, "notify.sock"), host, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
	}
	if _, err := Listen(filepath.Join(dir, "notify.sock"), filepath.Join(dir, "nobody"), nil); err == nil {
		t.Error("it listens without a service manager")
	}
}

// A second start of a container must not take the socket from the first, whose program goes on writing to it.
func TestLiveSocketIsNotTakenAway(t *testing.T) {
	host := filepath.Join(t.TempDir(), "host")
	messages := manage(t, host)
	path := filepath.Join(t.TempDir(), "notify.sock")
	r, err := Listen(path, host, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Start(4711)
	if _, err := Listen(path, host, nil); !errors.Is(err, ErrTaken) {
		t.Errorf("a second one listens: %v", err)
	}
	say(t, path, "STATUS=here")
	if got := <-messages; got != "STATUS=here\n" {
		t.Errorf("the service manager read %q", got)
	}
}

// A socket has room for some ten messages; a program that finds it full stands still.
func TestProgramIsReadOnWithoutAServiceManager(t *testing.T) {
	host := filepath.Join(t.TempDir(), "host")
	_, end := mortal(t, host)
	path := filepath.Join(t.TempDir(), "notify.sock")
	var log bytes.Buffer
	r, err := Listen(path, host, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.Start(4711)
	end()
	for range 50 {
		say(t, path, "WATCHDOG=1")
	}
	say(t, path, "READY=1")
	if err := r.AwaitReady(t.Context()); err == nil {
		t.Error("the service manager took note, and was not there")
	}
	messages := manage(t, host)
	say(t, path, "READY=1")
	for _, want := range []string{"READY=1\nMAINPID=4711\n"} {
		if got := <-messages; got != want {
			t.Errorf("the new service manager read %q, want %q", got, want)
		}
	}
	if err := r.Close(); err != nil {
		t.Errorf("the last message arrived, and yet: %v", err)
	}
	if !strings.Contains(log.String(), "a message of the container is lost") {
		t.Errorf("the log has no word of it: %q", log.String())
	}
}

func TestCloseTellsThatTheLastMessageWasLost(t *testing.T) {
	host := filepath.Join(t.TempDir(), "host")
	_, end := mortal(t, host)
	path := filepath.Join(t.TempDir(), "notify.sock")
	r, err := Listen(path, host, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Start(4711)
	end()
	say(t, path, "STOPPING=1")
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), "tell the service manager") {
		t.Errorf("it was lost: %v", err)
	}
}
