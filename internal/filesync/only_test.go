package filesync

import (
	"errors"
	"os"
	"testing"
	"time"
)

// Of a directory from which single files are bound into a container, the others are nobody's business at the peer.
func TestOnlyNamedFilesAreSent(t *testing.T) {
	p := newPair(t)
	p.write("wanted", "content")
	p.write("other", "secret")
	p.write("dir/deep", "secret too")
	must(t, os.WriteFile(p.dst+"/stays", nil, 0o600))
	p.open(SourceOptions{Only: []string{"wanted", "later"}}, true)
	p.pass()
	p.write("wanted", "changed")
	p.write("other", "changed")
	p.write("later", "new")
	must(t, os.Rename(p.at("dir"), p.at("dir2")))
	time.Sleep(2 * racyWindow)
	p.delta()
	for name, want := range map[string]string{"wanted": "changed", "later": "new", "stays": "", "other": "none", "dir": "none", "dir2": "none"} {
		text, err := os.ReadFile(p.dst + "/" + name)
		if errors.Is(err, os.ErrNotExist) {
			text = []byte("none")
		}
		if string(text) != want {
			t.Errorf("%s is %q", name, text)
		}
	}
	if _, err := OpenSource(p.src, &SourceOptions{Only: []string{"a/b"}}); err == nil {
		t.Error("a path passes for a name")
	}
}
