package spec

import (
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// fields lists every field of config.json by its path, those of elements without their index or key.
func fields() []string {
	var list []string
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			list = append(list, path)
			return
		}
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			platforms := f.Tag.Get("platform")
			below := strings.TrimPrefix(path+"."+name, ".")
			switch {
			case f.Anonymous:
				walk(f.Type, path)
			case platforms != "" && !strings.Contains(platforms, "linux"):
				list = append(list, below) // of another system: one row is enough
			default:
				walk(f.Type, below)
			}
		}
	}
	walk(reflect.TypeFor[specs.Spec](), "")
	slices.Sort(list)
	return slices.Compact(list)
}

// expand writes a{b,c}d out.
func expand(text string) []string {
	open := strings.IndexByte(text, '{')
	if open < 0 {
		return []string{text}
	}
	end := open + strings.IndexByte(text[open:], '}')
	var list []string
	for middle := range strings.SplitSeq(text[open+1:end], ",") {
		list = append(list, expand(text[:open]+middle+text[end+1:])...)
	}
	return list
}

// TestEveryFieldHasItsRow: what a newer version of the specification brings is not silently ignored.
func TestEveryFieldHasItsRow(t *testing.T) {
	known := fields()
	var named []string
	for line := range strings.Lines(text(t, "../../docs/spec.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			named = append(named, expand(quoted[1])...)
		}
	}
	for _, field := range known {
		if !slices.Contains(named, field) {
			t.Errorf("%s has no row in docs/spec.md", field)
		}
	}
	for _, name := range named {
		if !slices.Contains(known, name) {
			t.Errorf("docs/spec.md names %s, which the specification has not", name)
		}
	}
}

// TestEveryTestOfTheDocumentExists: a row whose test was renamed or removed proves nothing.
func TestEveryTestOfTheDocumentExists(t *testing.T) {
	out, err := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func (Test|Fuzz)[A-Za-z0-9_]+", "../..").Output()
	must(t, err)
	have := map[string]bool{}
	for name := range strings.Lines(string(out)) {
		have[strings.TrimPrefix(strings.TrimSpace(name), "func ")] = true
	}
	document, err := os.ReadFile("../../docs/spec.md")
	must(t, err)
	named := regexp.MustCompile(`\b(Test|Fuzz)[A-Z][A-Za-z0-9_]+`).FindAllString(string(document), -1)
	if len(named) == 0 {
		t.Error("docs/spec.md names no test")
	}
	for _, name := range named {
		if !have[name] {
			t.Errorf("docs/spec.md names %s, which is nowhere", name)
		}
	}
}
