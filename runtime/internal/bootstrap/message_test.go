package bootstrap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestMessagesThatTheKernelWouldRefuseAreRefused(t *testing.T) {
	one := []specs.LinuxIDMapping{{Size: 1}}
	tests := []struct {
		name    string
		message Message
		want    string // "": fine
	}{
		{"empty", Message{}, ""},
		{"all new", Message{CloneFlags: unix.CLONE_NEWUSER | unix.CLONE_NEWTIME, UIDMap: one, GIDMap: one, TimeOffsets: map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1}}}, ""},
		{"comma in a path", Message{Namespaces: []Namespace{{"net", "/run/a,user:/proc/1/ns/user"}}}, "contains a comma"},
		{"relative path", Message{Namespaces: []Namespace{{"net", "run/netns/a"}}}, "not absolute"},
		{"unknown type", Message{Namespaces: []Namespace{{"network", "/run/a"}}}, "unknown namespace type"},
		{"joined twice", Message{Namespaces: []Namespace{{"net", "/a"}, {"net", "/b"}}}, "named twice"},
		{"joined and new", Message{CloneFlags: unix.CLONE_NEWNET, Namespaces: []Namespace{{"net", "/a"}}}, "named twice"},
		{"maps of a joined user namespace", Message{Namespaces: []Namespace{{"user", "/a"}}, UIDMap: one}, "joined by path"},
		{"user namespace without maps", Message{CloneFlags: unix.CLONE_NEWUSER, UIDMap: one}, "needs uid and gid maps"},
		{"too many lines", Message{CloneFlags: unix.CLONE_NEWUSER, UIDMap: make([]specs.LinuxIDMapping, 341), GIDMap: one}, "more than 340"},
		{"unknown clock", Message{CloneFlags: unix.CLONE_NEWTIME, TimeOffsets: map[string]specs.LinuxTimeOffset{"realtime": {}}}, "unknown clock"},
		{"offsets of no time namespace", Message{TimeOffsets: map[string]specs.LinuxTimeOffset{"boottime": {}}}, "need a time namespace"},
		{"path too long", Message{Namespaces: []Namespace{{"net", "/" + strings.Repeat("a", 1<<16)}}}, "more than 65535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.message.Encode()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Encode: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestEncodedMessageSaysWhatWasMeant(t *testing.T) {
	m := &Message{
		CloneFlags: unix.CLONE_NEWUSER | unix.CLONE_NEWTIME,
		Namespaces: []Namespace{{"net", "/run/netns/a"}, {"ipc", "/proc/7/ns/ipc"}},
		UIDMap:     []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65536}},
		GIDMap:     []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100, Size: 1}},
		NewUIDMap:  "/usr/bin/newuidmap", Setgroups: true, OOMScoreAdj: "-5",
		TimeOffsets: map[string]specs.LinuxTimeOffset{"monotonic": {Secs: -3, Nanosecs: 9}, "boottime": {Secs: 4}},
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		fmt.Sprintf("flags=%d", m.CloneFlags), "setgroups=1", "rootless=0", "debug=0",
		"namespaces=net:/run/netns/a,ipc:/proc/7/ns/ipc",
		"uid_map=0 1000 1\n1 100000 65536\n", "gid_map=0 100 1\n",
		"newuidmap=/usr/bin/newuidmap", "oom_score_adj=-5", "time_offsets=boottime 4 0\nmonotonic -3 9\n",
		fmt.Sprintf("join=%d:/run/netns/a", unix.CLONE_NEWNET), fmt.Sprintf("join=%d:/proc/7/ns/ipc", unix.CLONE_NEWIPC),
		"words=6", "",
	}, "\n")
	if got := startParser(t).parse(t, data); got != want {
		t.Errorf("the stage reads %s, want %s", got, want)
	}
}

// FuzzEncode: whatever a config brings, a message that passes Validate is one the C stage reads back to the same words.
func FuzzEncode(f *testing.F) {
	f.Add(uint32(unix.CLONE_NEWNS), "net", "/run/netns/a", "-17", uint32(0), uint32(1000), int64(5))
	f.Add(uint32(unix.CLONE_NEWUSER|unix.CLONE_NEWTIME), "user", "/a,b:/c", "x\x00y", uint32(1), uint32(1<<31), int64(-1))
	parser := startParser(f)
	f.Fuzz(func(t *testing.T, flags uint32, kind, path, adj string, container, host uint32, secs int64) {
		m := &Message{
			CloneFlags: flags, Namespaces: []Namespace{{kind, path}}, OOMScoreAdj: adj,
			UIDMap: []specs.LinuxIDMapping{{ContainerID: container, HostID: host, Size: 1}},
			GIDMap: []specs.LinuxIDMapping{{ContainerID: host, HostID: container, Size: 1}},
		}
		if flags&unix.CLONE_NEWTIME != 0 {
			m.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: secs}}
		}
		data, err := m.Encode()
		if err != nil {
			return
		}
		if got, want := parser.parse(t, data), said(t, m); got != want {
			t.Errorf("the stage reads %q, it was told %q", got, want)
		}
	})
}

// said is what the message says, in the words of testdata/parse.c.
func said(t *testing.T, m *Message) string {
	t.Helper()
	numbers := map[uint16]uint32{attrCloneFlags: m.CloneFlags}
	texts := map[uint16]string{}
	for kind, text := range map[uint16]string{
		attrNamespaces: formatNamespaces(m.Namespaces), attrUIDMap: formatMap(m.UIDMap), attrGIDMap: formatMap(m.GIDMap),
		attrOOMScoreAdj: m.OOMScoreAdj, attrTimeOffsets: formatOffsets(m.TimeOffsets),
	} {
		if text != "" {
			texts[kind] = text
		}
	}
	text, err := words(numbers, texts)
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range m.Namespaces {
		if join := fmt.Sprintf("\njoin=%d:%s\n", CloneFlag(ns.Type), ns.Path); !strings.Contains(text, join) {
			t.Errorf("no %q in %q", join, text)
		}
	}
	return text
}

func TestReplyIsAPidOrTheStagesWords(t *testing.T) {
	record := func(pid int32, text string) *strings.Reader {
		buf := binary.NativeEndian.AppendUint32(nil, uint32(pid))
		buf = append(buf, text...)
		return strings.NewReader(string(append(buf, make([]byte, recordSize-len(buf))...)))
	}
	discard := slog.New(slog.DiscardHandler)
	if pid, err := ReadReply(record(4711, ""), discard); err != nil || pid != 4711 {
		t.Errorf("ReadReply: %d, %v", pid, err)
	}
	_, err := ReadReply(record(-1, "join namespace: Permission denied"), discard)
	if stage, ok := errors.AsType[*Error](err); !ok || stage.Text != "join namespace: Permission denied" {
		t.Errorf("ReadReply: %v", err)
	}
	if _, err := ReadReply(strings.NewReader("short"), discard); err == nil {
		t.Error("a cut record is no error")
	}
}

func TestWhatTheStageDoesIsLogged(t *testing.T) {
	var out, log bytes.Buffer
	for _, r := range []struct {
		pid  int32
		text string
	}{{0, "nsexec[7]: affinity: 0x3"}, {0, "nsexec[7]: join namespaces"}, {4711, ""}} {
		line := append(binary.NativeEndian.AppendUint32(nil, uint32(r.pid)), r.text...)
		out.Write(append(line, make([]byte, recordSize-len(line))...))
	}
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if pid, err := ReadReply(&out, logger); err != nil || pid != 4711 {
		t.Errorf("ReadReply: %d, %v", pid, err)
	}
	for _, want := range []string{"affinity: 0x3", "join namespaces"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log.String())
		}
	}
}
