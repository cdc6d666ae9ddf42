package track

import (
	"slices"
	"testing"
)

func TestAreasAreWhatCRIUCallsLazy(t *testing.T) {
	const maps = `00400000-00401000 r-xp 00000000 08:01 77     /bin/program
00600000-00601000 rw-p 00000000 00:00 0
01000000-01021000 rw-p 00000000 00:00 0      [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0
7f0000001000-7f0000002000 rw-p 00000000 00:00 0  [anon: a name]
7f0000002000-7f0000003000 rw-s 00000000 00:01 5  /dev/zero (deleted)
7f0000004000-7f0000005000 rw-p 00000000 00:00 0
7f0000200000-7f0000400000 rw-p 00000000 00:0f 99 /anon_hugepage (deleted)
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0  [stack]
7ffc00030000-7ffc00034000 r--p 00000000 00:00 0  [vvar]
7ffc00034000-7ffc00036000 r--p 00000000 00:00 0  [vvar_vclock]
7ffc00036000-7ffc00038000 r-xp 00000000 00:00 0  [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
`
	a, err := parseAreas([]byte(maps))
	if err != nil {
		t.Fatal(err)
	}
	if want := []area{
		{0x600000, 0x601000},
		{0x1000000, 0x1021000},
		{0x7f0000000000, 0x7f0000001000},
		{0x7f0000001000, 0x7f0000002000},
		{0x7f0000004000, 0x7f0000005000},
		{0x7ffc00000000, 0x7ffc00021000},
	}; !slices.Equal(a.mappings, want) {
		t.Errorf("mappings %x", a.mappings)
	}
	if want := []area{
		{0x600000, 0x7f0000002000}, {0x7f0000004000, 0x7f0000005000}, {0x7ffc00000000, 0x7ffc00021000},
	}; !slices.Equal(a.spans, want) {
		t.Errorf("spans %x", a.spans)
	}
}

func TestLockedAreasAreLeftOut(t *testing.T) {
	const smaps = `10000-20000 rw-p 00000000 00:00 0
Size:                 64 kB
VmFlags: rd wr mr mw me ac
20000-30000 rw-p 00000000 00:00 0
Locked:               64 kB
VmFlags: rd wr mr mw me lo ac
30000-40000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac
50000-60000 rw-p 00000000 00:00 0
VmFlags: rd wr lo
`
	a, err := parseAreas([]byte(smaps))
	if err != nil {
		t.Fatal(err)
	}
	want := []area{{0x10000, 0x20000}, {0x30000, 0x40000}}
	if !slices.Equal(a.mappings, want) || !slices.Equal(a.spans, want) {
		t.Errorf("mappings %x, spans %x", a.mappings, a.spans)
	}
}

func TestMapsThatCannotBeRead(t *testing.T) {
	for _, text := range []string{"x\n", "10000-\n", "20000-10000 rw-p 0 00:00 0\n", "10000-20000 rw\n", "10000-20000 rw-p 0\n"} {
		if _, err := parseAreas([]byte(text)); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}
