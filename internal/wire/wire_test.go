package wire

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

func hello(edit func(*Hello)) *Message {
	h := &Hello{
		Protocol:  Protocol,
		Move:      strings.Repeat("0a", 16),
		Container: "web",
		Trees:     []*Tree{{Name: "rootfs"}},
	}
	edit(h)
	return &Message{Body: &Message_Hello{Hello: h}}
}

func TestDecodeRefusesWhatNoHonestPeerSends(t *testing.T) {
	for name, m := range map[string]*Message{
		"no body":                  {},
		"id with a slash":          hello(func(h *Hello) { h.Container = "../web" }),
		"id of dots":               hello(func(h *Hello) { h.Container = ".." }),
		"no id":                    hello(func(h *Hello) { h.Container = "" }),
		"move that is a path":      hello(func(h *Hello) { h.Move = "../../etc/passwd" }),
		"config too long":          hello(func(h *Hello) { h.Config = make([]byte, MaxConfig+1) }),
		"no trees":                 hello(func(h *Hello) { h.Trees = nil }),
		"tree name that climbs":    hello(func(h *Hello) { h.Trees[0].Name = ".." }),
		"image with a slash":       {Body: &Message_Images{Images: &Images{Files: []*ImageFile{{Name: "a/b"}}}}},
		"the same image twice":     {Body: &Message_Images{Images: &Images{Files: []*ImageFile{{Name: "a"}, {Name: "a"}}}}},
		"ask for a strange move":   {Body: &Message_Ask{Ask: &Ask{Move: "x"}}},
		"failure without an end":   {Body: &Message_Failure{Failure: &Failure{Text: strings.Repeat("x", MaxFailure+1)}}},
		"aborted, too long":        {Body: &Message_Aborted{Aborted: &Aborted{Cause: &Failure{Text: strings.Repeat("x", MaxFailure+1)}}}},
		"stored, too long":         {Body: &Message_PagesStored{PagesStored: &PagesStored{Failure: &Failure{Text: strings.Repeat("x", MaxFailure+1)}}}},
		"too many findings":        {Body: &Message_Offer{Offer: &Offer{Findings: make([]*Finding, MaxFindings+1)}}},
		"an unknown severity":      {Body: &Message_Offer{Offer: &Offer{Findings: []*Finding{{Severity: "fatal", Code: "tracker"}}}}},
		"a code that is none":      {Body: &Message_Offer{Offer: &Offer{Findings: []*Finding{{Severity: Blocker, Code: "\x1b[2J"}}}}},
		"a code without an end":    {Body: &Message_Offer{Offer: &Offer{Findings: []*Finding{{Severity: Blocker, Code: strings.Repeat("x", 65)}}}}},
		"a finding without an end": {Body: &Message_Failure{Failure: &Failure{Findings: []*Finding{{Text: strings.Repeat("x", MaxFinding+1)}}}}},
		"too many files":           hello(func(h *Hello) { h.Needs = &Needs{Files: make([]*SharedFile, MaxFiles+1)} }),
		"image name that is long":  {Body: &Message_Images{Images: &Images{Files: []*ImageFile{{Name: strings.Repeat("a", 65)}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			frame, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Decode(frame); !errors.Is(err, ErrMalformed) {
				t.Errorf("Decode: %v, want ErrMalformed", err)
			}
		})
	}
}

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	for _, m := range []*Message{
		hello(func(*Hello) {}),
		{Body: &Message_Commit{Commit: &Commit{}}},
		{Body: &Message_Images{Images: &Images{Files: []*ImageFile{{Name: "pages-1.img", Size: 1 << 40}}}}},
	} {
		frame, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(frame)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(m, got) {
			t.Errorf("got %v, want %v", got, m)
		}
	}
}

// The list of a large set must not fail inside the freeze for its length.
func TestAsManyImagesAsAllowedFitIntoAMessage(t *testing.T) {
	list := &Images{Stdio: make([]byte, 4096), More: true}
	for i := range MaxListed {
		name := fmt.Sprintf("%0*d", MaxImageName, i)
		list.Files = append(list.Files, &ImageFile{Name: name, Size: 1 << 62, Mode: 0o177777})
	}
	frame, err := Encode(&Message{Body: &Message_Images{Images: list}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(frame); err != nil {
		t.Error(err)
	}
}

// A hello of another version is no malformed one: the user must hear of the versions.
func TestDecodeLetsOtherVersionsThrough(t *testing.T) {
	frame, err := Encode(&Message{Body: &Message_Hello{Hello: &Hello{Protocol: Protocol + 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(frame); err != nil {
		t.Errorf("Decode: %v", err)
	}
}

func TestErrorsCrossHosts(t *testing.T) {
	for _, c := range codes() {
		code, sentinel := c.name, c.sentinel
		err := NewFailure(fmt.Errorf("make spool: %w", sentinel)).Err()
		if !errors.Is(err, sentinel) {
			t.Errorf("%s: %v does not wrap its sentinel any more", code, err)
		}
	}
	err := NewFailure(errors.New("odd")).Err()
	if err.Error() != "peer: odd" || errors.Unwrap(err) != nil {
		t.Errorf("got %v", err)
	}
}

// A preflight that found a lot is told as far as it fits, and never fails for its length.
func TestRefusalIsShortAndHarmless(t *testing.T) {
	odd := &Finding{Severity: Blocker, Text: "maps\t\x1b[2J\u009b\u202e\nit", Pid: 7, Process: "web\r\x07", Cure: "stöp it"}
	for n, want := range map[int]string{
		1: "process 7 (web??) maps ?[2J??; it: stöp it",
		8: strings.TrimSuffix(strings.Repeat(odd.Line()+"; ", 8), "; "),
		9: strings.Repeat(odd.Line()+"; ", 8) + "and 1 more",
	} {
		r := &RefusalError{Findings: slices.Repeat([]*Finding{odd}, n)}
		if got := r.Error(); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestFindingsCrossHosts(t *testing.T) {
	long := &Finding{Severity: Blocker, Code: "io-uring", Text: strings.Repeat("\xff", 2*MaxFinding), Pid: 7, Process: "node", Cure: strings.Repeat("y", 2*MaxFinding)}
	refusal := &RefusalError{Cause: ErrExists}
	for range 2 * MaxFindings {
		refusal.Findings = append(refusal.Findings, long)
	}
	frame, err := Encode(&Message{Body: &Message_Failure{Failure: NewFailure(fmt.Errorf("reserve: %w", refusal))}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	err = m.GetFailure().Err()
	found := FindingsOf(err)
	if len(found) != MaxFindings || found[0].GetPid() != 7 || found[0].GetCode() != "io-uring" || !errors.Is(err, ErrExists) {
		t.Errorf("%d findings, %v", len(found), errors.Unwrap(err))
	}
	offer := &Offer{}
	offer.SetFindings(refusal.Findings)
	if frame, err = Encode(&Message{Body: &Message_Offer{Offer: offer}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(frame); err != nil {
		t.Error(err)
	}
}

func TestChunkFindsEveryFlippedBit(t *testing.T) {
	c := Chunk{Name: "pages-1.img", Offset: 4096, Data: []byte("some memory")}
	frame := append(AppendChunkHeader(nil, c), c.Data...)
	got, err := DecodeChunk(frame)
	if err != nil || got.Name != c.Name || got.Offset != c.Offset || !bytes.Equal(got.Data, c.Data) {
		t.Fatalf("DecodeChunk: %+v, %v", got, err)
	}
	for bit := range 8 * len(c.Data) {
		bad := bytes.Clone(frame)
		bad[len(frame)-len(c.Data)+bit/8] ^= 1 << (bit % 8)
		if _, err := DecodeChunk(bad); !errors.Is(err, ErrMalformed) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
	for n := range len(frame) {
		if _, err := DecodeChunk(frame[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestPageFramesAreToldFromChunks(t *testing.T) {
	frame := append(AppendPagesHeader(nil), "pages"...)
	if pages, err := DecodePages(frame); err != nil || string(pages) != "pages" || !IsPages(frame) {
		t.Errorf("DecodePages: %q, %v", pages, err)
	}
	chunk := append(AppendChunkHeader(nil, Chunk{Name: "core-1.img", Data: []byte("x")}), 'x')
	for name, bad := range map[string][]byte{
		"nothing": nil, "a chunk": chunk, "no pages": frame[:1], "too many": append(frame[:1:1], make([]byte, MaxPages+1)...),
	} {
		if _, err := DecodePages(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeChunk(frame); !errors.Is(err, ErrMalformed) || IsPages(chunk) {
		t.Errorf("a page frame passed as a chunk: %v", err)
	}
}

func TestNamesOfAPeerStayInsideTheDirectory(t *testing.T) {
	for _, name := range []string{"pages-1.img", "core-1.img", "tmpfs-dev-57.tar.gz.img", "manifest.json", "tmpfs.files", "ghost-file-1.img"} {
		if !ValidImageName(name) {
			t.Errorf("%q does not pass", name)
		}
	}
	for _, name := range []string{"", ".", "..", "../core-1.img", "a/b.img", ".img", "/core-1.img", "core-1.img\x00", strings.Repeat("a", 200) + ".img"} {
		if ValidImageName(name) {
			t.Errorf("%q passes", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	frame, _ := Encode(hello(func(*Hello) {}))
	f.Add(frame)
	frame, _ = Encode(&Message{Body: &Message_Failure{Failure: NewFailure(&RefusalError{Findings: []*Finding{{Severity: Blocker, Code: "device"}}})}})
	f.Add(frame)
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, err := Decode(frame)
		if err == nil && m.GetBody() == nil {
			t.Error("a message without a body passed")
		}
	})
}

func FuzzDecodeChunk(f *testing.F) {
	f.Add(append(AppendChunkHeader(nil, Chunk{Name: "core-1.img", Data: []byte("x")}), 'x'))
	f.Fuzz(func(t *testing.T, frame []byte) {
		c, err := DecodeChunk(frame)
		if err == nil && !ValidImageName(c.Name) {
			t.Errorf("name %q passed", c.Name)
		}
	})
}

// Whatever a failure's text is, it arrives.
func TestFailureOfAnyTextArrives(t *testing.T) {
	for _, text := range []string{"", strings.Repeat("x", 2*MaxFailure), strings.Repeat("\xff", 2*MaxFailure), strings.Repeat("ö", MaxFailure)} {
		frame, err := Encode(&Message{Body: &Message_Failure{Failure: NewFailure(errors.New(text))}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(frame); err != nil {
			t.Errorf("a text of %d bytes: %v", len(text), err)
		}
	}
}
