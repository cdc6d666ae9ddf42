package bootstrap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/testutil"
)

// cParser is the stage's parser in a process of its own, built with the address sanitizer: a read beyond a message, or
// a text that is none, ends it.
type cParser struct {
	in  io.Writer
	out io.Reader
	err *strings.Builder
}

func startParser(tb testing.TB) *cParser {
	tb.Helper()
	gcc := testutil.Command(tb, "gcc")
	program := filepath.Join(tb.TempDir(), "parse")
	build := exec.Command(gcc, "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-fno-sanitize-recover=all",
		"-fsanitize=address,undefined", "-o", program, "testdata/parse.c", "message.c")
	if text, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("build the parser: %v\n%s", err, text)
	}
	cmd := exec.Command(program)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	p := &cParser{in: in, out: out, err: new(strings.Builder)}
	cmd.Stderr = p.err
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the parser ended with %v: %s", err, p.err)
		}
	})
	return p
}

func (p *cParser) parse(t *testing.T, data []byte) string {
	t.Helper()
	request := binary.NativeEndian.AppendUint32(nil, uint32(len(data)))
	if _, err := p.in.Write(append(request, data...)); err != nil {
		t.Fatalf("the parser died: %v", err)
	}
	var size [4]byte
	if _, err := io.ReadFull(p.out, size[:]); err != nil {
		t.Fatalf("the parser died of %q: %v", data, err)
	}
	answer := make([]byte, binary.NativeEndian.Uint32(size[:]))
	if _, err := io.ReadFull(p.out, answer); err != nil {
		t.Fatalf("the parser died of %q: %v", data, err)
	}
	return string(answer)
}

// decode reads a message by the rules of message.c, into the words of testdata/parse.c.
func decode(data []byte) (string, error) {
	if len(data) < headerSize || int(binary.NativeEndian.Uint32(data)) != len(data) || len(data) > messageMax ||
		binary.NativeEndian.Uint16(data[4:]) != messageType {
		return "", errors.New("bad header")
	}
	numbers, texts := map[uint16]uint32{}, map[uint16]string{}
	for left := data[headerSize:]; len(left) > 0; {
		if len(left) < attrHeader {
			return "", errors.New("bytes too many")
		}
		size, kind := int(binary.NativeEndian.Uint16(left)), binary.NativeEndian.Uint16(left[2:])
		if size < attrHeader || size > len(left) {
			return "", fmt.Errorf("attribute of %d bytes with %d left", size, len(left))
		}
		payload := string(left[attrHeader:size])
		switch kind {
		case attrCloneFlags, attrSetgroups, attrRootless, attrDebug:
			if len(payload) != 4 {
				return "", errors.New("number of a wrong size")
			}
			numbers[kind] = binary.NativeEndian.Uint32([]byte(payload))
		case attrNamespaces, attrUIDMap, attrGIDMap, attrNewUIDMap, attrNewGIDMap, attrOOMScoreAdj, attrTimeOffsets:
			text, found := strings.CutSuffix(payload, "\x00")
			if !found || strings.ContainsRune(text, 0) {
				return "", errors.New("text without an end")
			}
			texts[kind] = text
		default:
			return "", fmt.Errorf("unknown attribute %d", kind)
		}
		left = left[min((size+3)&^3, len(left)):]
	}
	return words(numbers, texts)
}

func words(numbers map[uint16]uint32, texts map[uint16]string) (string, error) {
	flag := func(kind uint16) int {
		if numbers[kind] != 0 {
			return 1
		}
		return 0
	}
	var b strings.Builder
	fmt.Fprintf(&b, "flags=%d\nsetgroups=%d\nrootless=%d\ndebug=%d\n",
		numbers[attrCloneFlags], flag(attrSetgroups), flag(attrRootless), flag(attrDebug))
	for _, field := range []struct {
		kind uint16
		name string
	}{
		{attrNamespaces, "namespaces"},
		{attrUIDMap, "uid_map"},
		{attrGIDMap, "gid_map"},
		{attrNewUIDMap, "newuidmap"},
		{attrNewGIDMap, "newgidmap"},
		{attrOOMScoreAdj, "oom_score_adj"},
		{attrTimeOffsets, "time_offsets"},
	} {
		if text, ok := texts[field.kind]; ok {
			fmt.Fprintf(&b, "%s=%s\n", field.name, text)
		}
	}
	// A comma at the end is none too many: nothing follows it.
	if list := strings.TrimSuffix(texts[attrNamespaces], ","); texts[attrNamespaces] != "" {
		joins := strings.Split(list, ",")
		for _, join := range joins {
			kind, path, ok := strings.Cut(join, ":")
			if !ok || CloneFlag(kind) == 0 || len(joins) > 8 {
				return "", fmt.Errorf("bad list of namespaces %q", list)
			}
			fmt.Fprintf(&b, "join=%d:%s\n", CloneFlag(kind), path)
		}
	}
	if text, ok := texts[attrUIDMap]; ok {
		isBlank := func(r rune) bool { return r == ' ' || r == '\n' }
		fmt.Fprintf(&b, "words=%d\n", min(len(strings.FieldsFunc(text, isBlank)), 3*maxMapLines))
	}
	return b.String(), nil
}

// FuzzParser: the C stage and a parser in memory-safe Go take the same messages, and read the same in them.
func FuzzParser(f *testing.F) {
	one := []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}
	for _, m := range []*Message{
		{},
		{CloneFlags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, OOMScoreAdj: "-500", Setgroups: true, Debug: true},
		{
			CloneFlags: unix.CLONE_NEWUSER | unix.CLONE_NEWTIME, UIDMap: one, GIDMap: one, Rootless: true,
			NewUIDMap: "/usr/bin/newuidmap", NewGIDMap: "/usr/bin/newgidmap",
			TimeOffsets: map[string]specs.LinuxTimeOffset{"monotonic": {Secs: -3, Nanosecs: 9}},
		},
		{Namespaces: []Namespace{{"user", "/proc/7/ns/user"}, {"net", "/run/netns/a:b"}, {"cgroup", "/"}}},
	} {
		data, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-1])
	}
	parser := startParser(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		if len(data) >= 4 { // else all but one in four billion would end at the length
			data = append([]byte(nil), data...)
			binary.NativeEndian.PutUint32(data, uint32(len(data)))
		}
		want, err := decode(data)
		got := parser.parse(t, data)
		if refused := strings.HasPrefix(got, "error: "); refused != (err != nil) || err == nil && got != want {
			t.Errorf("the stage reads %q as %q; it is %q, error %v", data, got, want, err)
		}
	})
}
