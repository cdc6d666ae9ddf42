package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/tests/lab"
)

// What a container keeps in its tmpfs mounts is there after a move, and so are the mounts: also after the next one.
func TestFilesOfTmpfsArrive(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "shm", "busybox", "sh", "-c", strings.Join([]string{ // one line of JSON
		"cd /dev/shm; busybox mkdir deep; echo text >deep/file; busybox chmod 4711 deep/file; ln -s second link; busybox ln deep/file second",
		"busybox mkfifo fifo; busybox truncate -s 1M sparse; echo device >/dev/own",
		"exec 9>gone 8>grows; echo kept >&9; busybox rm gone; echo start >&8; while :; do sleep 1; done",
	}, "; "))
	tell := func(h *lab.Host) string {
		w.t.Helper()
		out, err := h.Run(w.ctx, "migrate", "exec", "shm", "sh", "-c", `
			echo more >>/proc/1/fd/8; cat /dev/shm/grows | busybox wc -l >/dev/null; cat /proc/1/fd/9 /dev/own /dev/shm/link
			cd /dev; busybox stat -c '%n %f %u:%g %Y %h %s %t:%T' . * shm/* shm/deep/* | busybox grep -v -e '^pts' -e '^mqueue' -e '^shm ' -e '^shm/grows'
			busybox awk '{ sub(/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ /, ""); print }' /proc/1/mountinfo | busybox grep tmpfs | busybox grep -v ' /proc/'
			ls /sys/firmware; echo x 2>&1 >/sys/firmware/new | busybox sed 's/.*: //'`)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return out
	}
	before := tell(w.A)
	if !strings.Contains(before, "kept\ndevice\ntext\n") {
		t.Fatalf("not what is expected before:\n%s", before)
	}
	at := w.A
	for range 2 {
		to := w.other(at)
		w.push(at, "shm", w.tls(to)).moved()
		at = to
		if after := tell(at); after != before {
			t.Fatalf("after the move to %s:\n%s\nbefore:\n%s", at.Name, after, before)
		}
	}
	out, err := at.Run(w.ctx, "migrate", "exec", "shm", "cat", "/dev/shm/grows")
	if err != nil || out != "start\nmore\nmore\nmore\n" && strings.TrimSpace(out) != "start\nmore\nmore\nmore" {
		t.Errorf("the file that is written says %q, %v", out, err)
	}
	moveMuch(w, at, "shm")
	if logged, _ := w.A.Run(w.ctx, "sh", "-c", "cat /run/migrate/shm/* 2>/dev/null; ls /run/migrate/shm/scratch 2>&1"); !strings.Contains(logged, "No such file") {
		t.Errorf("something of the restore is left: %s", logged)
	}
}

// moveMuch moves a container with more in its tmpfs than whoever restores may be charged for: at the peer its own cgroup is.
func moveMuch(w *world, at *lab.Host, id string) {
	w.t.Helper()
	const much = 20 << 20
	tell := func(script string) string {
		w.t.Helper()
		out, err := at.Run(w.ctx, "migrate", "exec", id, "sh", "-c", script+"busybox sha256sum /dev/shm/much")
		if err != nil {
			w.t.Fatalf("%s: %v", out, err)
		}
		return out
	}
	before := tell(fmt.Sprintf("busybox head -c %d /dev/urandom >/dev/shm/much; ", much))
	to := w.other(at)
	w.push(at, id, w.tls(to)).moved()
	at = to
	if after := tell(""); after != before {
		w.t.Errorf("%q after the move, %q before", after, before)
	}
	text, err := at.Run(w.ctx, "cat", "/run/migrate/"+id+"/state.json")
	if err != nil {
		w.t.Fatal(err)
	}
	var state struct {
		Paths map[string]string `json:"cgroup_paths"`
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		w.t.Fatal(err)
	}
	stat, err := at.Run(w.ctx, "grep", "-w", "shmem", cmp.Or(state.Paths["memory"], state.Paths[""])+"/memory.stat")
	var shared int64
	if err == nil {
		_, err = fmt.Sscanf(stat, "shmem %d", &shared)
	}
	if err != nil || shared < much {
		w.t.Errorf("%d bytes of shared memory are charged to the container, %v", shared, err)
	}
}
