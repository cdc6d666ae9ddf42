package filesync

import (
	"encoding/binary"
	"fmt"
)

// The frames of one pass. The source speaks on the left, the peer on the right:
//
//	begin    version | kind                       ->
//	                                              <-   have     listing of the peer's tree, in walk order (full pass only)
//	                                              <-   listed   the listing is complete
//	changes  operations                           ->
//	end                                           ->
//	                                              <-   need     paths whose content must be sent after all; changes, end follow
//	                                              <-   done     all is applied
//
// Listing and changes flow at the same time. Either side may send fail instead of its next frame; the other stops, answers
// with its own last frame (end or fail, done or fail), and the channel can be used again.
//
//	frame    kind u8 | body
//	begin    version uvarint | pass u8
//	have     { shared uvarint | rest string | meta [16] | flags u8 | digest [32] if flags&1 }
//	end      flags u8                                 flags&1: ask for nothing, the next pass will bring it
//	need     { path string }
//	done     files uvarint | bytes uvarint | removed uvarint | dropped uvarint
//	fail     code uvarint | text string
//	string   length uvarint | bytes
type frameKind byte

const (
	frameBegin frameKind = iota + 1
	frameHave
	frameListed
	frameChanges
	frameEnd
	frameNeed
	frameDone
	frameFail
)

const (
	version = 1

	// MaxFrame is the longest frame either side sends: a chunk and its head.
	MaxFrame = chunkSize + 64<<10

	batchSize   = 256 << 10
	maxFailText = 4096
)

type passKind byte

const (
	passFull passKind = iota + 1
	passIncremental
)

func (k frameKind) String() string {
	names := [...]string{"begin", "have", "listed", "changes", "end", "need", "done", "fail"}
	if k >= 1 && int(k) <= len(names) {
		return names[k-1]
	}
	return fmt.Sprintf("frame %d", byte(k))
}

func splitFrame(b []byte) (frameKind, []byte, error) {
	if len(b) == 0 {
		return 0, nil, refuse("empty frame")
	}
	if len(b) > MaxFrame {
		return 0, nil, refuse("frame of %d bytes", len(b))
	}
	return frameKind(b[0]), b[1:], nil
}

func encodeBegin(kind passKind) []byte {
	b := binary.AppendUvarint([]byte{byte(frameBegin)}, version)
	return append(b, byte(kind))
}

func decodeBegin(body []byte) (passKind, error) {
	d := decoder{b: body}
	if v := d.uvarint(); d.err == nil && v != version {
		return 0, fmt.Errorf("%w: the source speaks %d, this side %d", ErrVersion, v, version)
	}
	kind := passKind(d.byte())
	if d.err == nil && kind != passFull && kind != passIncremental {
		d.fail("pass kind %d", kind)
	}
	return kind, d.err
}

func encodeFail(err error) []byte {
	text := err.Error()
	if len(text) > maxFailText {
		text = text[:maxFailText]
	}
	b := binary.AppendUvarint([]byte{byte(frameFail)}, uint64(codeOf(err)))
	return appendString(b, text)
}

func decodeFail(body []byte) error {
	d := decoder{b: body}
	e := &PeerError{code: code(d.uvarint()), Text: d.string(maxFailText)}
	if d.err != nil {
		return d.err
	}
	return e
}

// listed is one line of the peer's listing.
type listed struct {
	path   string
	meta   metaDigest
	file   bool // digest is of a regular file's content
	digest Digest
}

const hasDigest = 1

// appendListed adds a line to a have frame; prev is the path of the line before it in the same frame, or "".
func appendListed(b []byte, prev string, e *listed) []byte {
	shared := 0
	for shared < len(prev) && shared < len(e.path) && prev[shared] == e.path[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	b = appendString(b, e.path[shared:])
	b = append(b, e.meta[:]...)
	if !e.file {
		return append(b, 0)
	}
	return append(append(b, hasDigest), e.digest[:]...)
}

func decodeListed(body []byte) ([]listed, error) {
	d := decoder{b: body}
	var list []listed
	prev := ""
	for len(d.b) > 0 {
		shared := d.uvarint()
		if shared > uint64(len(prev)) {
			d.fail("shared prefix of %d bytes", shared)
			return nil, d.err
		}
		e := listed{path: prev[:shared] + d.string(maxPath)}
		copy(e.meta[:], d.take(metaDigestLen))
		if d.byte()&hasDigest != 0 {
			e.file, e.digest = true, d.digest()
		}
		if d.err != nil {
			return nil, d.err
		}
		if err := checkPath(e.path); err != nil {
			return nil, err
		}
		if prev != "" && comparePaths(prev, e.path) >= 0 {
			return nil, refuse("listing out of order at %q", e.path)
		}
		list, prev = append(list, e), e.path
	}
	return list, nil
}

func appendNeed(b []byte, path string) []byte { return appendString(b, path) }

func decodeNeed(body []byte) ([]string, error) {
	d := decoder{b: body}
	var list []string
	for len(d.b) > 0 && d.err == nil {
		list = append(list, d.path())
	}
	return list, d.err
}

// outcome is what the peer counted.
type outcome struct {
	Files   int64 // whose content was written
	Bytes   int64 // of content received
	Removed int64
	Dropped int64 // extended attributes the peer's filesystem would not take
}

func encodeDone(o *outcome) []byte {
	b := []byte{byte(frameDone)}
	for _, n := range []int64{o.Files, o.Bytes, o.Removed, o.Dropped} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func decodeDone(body []byte) (o outcome, err error) {
	d := decoder{b: body}
	o = outcome{Files: d.size(), Bytes: d.size(), Removed: d.size(), Dropped: d.size()}
	return o, d.err
}
