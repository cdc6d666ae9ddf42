package runtime

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// namespaceMaps reads the id maps of a user namespace. The kernel shows them only in /proc/PID of a process in it.
func namespaceMaps(path string) (uids, gids []specs.LinuxIDMapping, err error) {
	dir, done, err := processIn(path)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to cache mappings for userns: %w", err)
	}
	defer done()
	if uids, err = readMap(filepath.Join(dir, "uid_map")); err == nil {
		gids, err = readMap(filepath.Join(dir, "gid_map"))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("failed to cache mappings for userns: %w", err)
	}
	return uids, gids, nil
}

// processIn returns the /proc directory of a process in the namespace. Given as /proc/PID/ns/user there is one already;
// for a bind mount nsenter(1) puts one there, which waits until its input ends, at our death too. (A Go program is multithreaded, and a
// thread of such a one may not enter a user namespace.)
func processIn(path string) (dir string, done func(), err error) {
	if dir, ok := strings.CutSuffix(path, "/ns/user"); ok && strings.HasPrefix(dir, "/proc/") {
		return dir, func() {}, nil
	}
	cmd := exec.CommandContext(context.Background(), "nsenter", "--user="+path, "--preserve-credentials", "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	done = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	// An echo tells that it is inside.
	if _, err := in.Write([]byte("\n")); err == nil {
		_, err = bufio.NewReader(out).ReadByte()
		if err == nil {
			return fmt.Sprintf("/proc/%d", cmd.Process.Pid), done, nil
		}
	}
	done()
	return "", nil, fmt.Errorf("enter user namespace %s: nsenter failed: %v", path, cmd.ProcessState)
}

func readMap(path string) ([]specs.LinuxIDMapping, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []specs.LinuxIDMapping
	for line := range strings.Lines(string(data)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("parse %s: %q: %w", path, line, err)
		}
		list = append(list, m)
	}
	return list, nil
}
