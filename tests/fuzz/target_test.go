package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// A crasher that the table leaves out would pass.
func TestCrasherAndFiguresAreRead(t *testing.T) {
	o := outcome{target: target{"internal/wire", "FuzzDecode"}}
	o.listen(strings.NewReader(`fuzz: elapsed: 0s, gathering baseline coverage: 0/57 completed
fuzz: elapsed: 3s, execs: 52310 (17435/sec), new interesting: 3 (total: 60)
fuzz: elapsed: 5s, execs: 99923 (18938/sec), new interesting: 4 (total: 61)
--- FAIL: FuzzDecode (5.08s)
    Failing input written to testdata/fuzz/FuzzDecode/5838cdfae7b16cde
`))
	if o.execs != 99923 || o.fresh != 4 || !o.failed() {
		t.Errorf("%+v", o)
	}
	seed := outcome{target: o.target, err: errors.New("exit status 1")} // of a seed that fails no input is written
	var out bytes.Buffer
	if err := table(&out, []outcome{o, seed}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"99923", "internal/wire/testdata/fuzz/FuzzDecode/5838cdfae7b16cde", "exit status 1", "2 functions"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if !seed.failed() {
		t.Error("a target that failed passes")
	}
}

func TestEveryFunctionIsFound(t *testing.T) {
	all, err := find("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []target{{"../../internal/wire", "FuzzDecode"}, {"../../internal/wire", "FuzzDecodeChunk"}, {"../../runtime", "FuzzConfig"}} {
		if !slices.Contains(all, want) {
			t.Errorf("%+v is not among %v", want, all)
		}
	}
}
