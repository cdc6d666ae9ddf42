package bootstrap

import (
	"encoding/binary"
	"errors"
	"fmt"
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

// decode reads a message as the C stage does, with its checks.
func decode(data []byte) (map[uint16]string, error) {
	if len(data) < headerSize || int(binary.NativeEndian.Uint32(data)) != len(data) ||
		binary.NativeEndian.Uint16(data[4:]) != messageType {
		return nil, errors.New("bad header")
	}
	attributes := map[uint16]string{}
	for left := data[headerSize:]; len(left) >= attrHeader; {
		size := int(binary.NativeEndian.Uint16(left))
		if size < attrHeader || size > len(left) {
			return nil, fmt.Errorf("attribute of %d bytes with %d left", size, len(left))
		}
		attributes[binary.NativeEndian.Uint16(left[2:])] = string(left[attrHeader:size])
		left = left[min((size+3)&^3, len(left)):]
	}
	return attributes, nil
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
	got, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint16]string{
		attrCloneFlags:  string(binary.NativeEndian.AppendUint32(nil, m.CloneFlags)),
		attrNamespaces:  "net:/run/netns/a,ipc:/proc/7/ns/ipc\x00",
		attrUIDMap:      "0 1000 1\n1 100000 65536\n\x00",
		attrGIDMap:      "0 100 1\n\x00",
		attrNewUIDMap:   "/usr/bin/newuidmap\x00",
		attrSetgroups:   string(binary.NativeEndian.AppendUint32(nil, 1)),
		attrOOMScoreAdj: "-5\x00",
		attrTimeOffsets: "boottime 4 0\nmonotonic -3 9\n\x00",
	}
	for kind, value := range want {
		if got[kind] != value {
			t.Errorf("attribute %d is %q, want %q", kind, got[kind], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d attributes, want %d", len(got), len(want))
	}
}

// FuzzEncode: whatever a config brings, a message that passes Validate is one the C stage reads back to the same words.
func FuzzEncode(f *testing.F) {
	f.Add(uint32(unix.CLONE_NEWNS), "net", "/run/netns/a", "-17", uint32(0), uint32(1000), int64(5))
	f.Add(uint32(unix.CLONE_NEWUSER|unix.CLONE_NEWTIME), "user", "/a,b:/c", "x\x00y", uint32(1), uint32(1<<31), int64(-1))
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
		got, err := decode(data)
		if err != nil {
			t.Fatal(err)
		}
		list := strings.TrimSuffix(got[attrNamespaces], "\x00")
		if gotKind, gotPath, _ := strings.Cut(list, ":"); gotKind != kind || gotPath != path || strings.Contains(list, ",") {
			t.Errorf("namespaces %q of %q, %q", list, kind, path)
		}
		if text := got[attrOOMScoreAdj]; adj != "" && text != adj+"\x00" {
			t.Errorf("oom_score_adj %q of %q", text, adj)
		}
	})
}

func TestReplyIsAPidOrTheStagesWords(t *testing.T) {
	record := func(pid int32, text string) *strings.Reader {
		buf := binary.NativeEndian.AppendUint32(nil, uint32(pid))
		buf = append(buf, text...)
		return strings.NewReader(string(append(buf, make([]byte, recordSize-len(buf))...)))
	}
	if pid, err := ReadReply(record(4711, "")); err != nil || pid != 4711 {
		t.Errorf("ReadReply: %d, %v", pid, err)
	}
	_, err := ReadReply(record(-1, "join namespace: Permission denied"))
	if stage, ok := errors.AsType[*Error](err); !ok || stage.Text != "join namespace: Permission denied" {
		t.Errorf("ReadReply: %v", err)
	}
	if _, err := ReadReply(strings.NewReader("short")); err == nil {
		t.Error("a cut record is no error")
	}
}
