// Package wire holds what two hosts say to each other during a handover: the messages of the control lane, the frames of
// the image lanes, the codes of errors that cross hosts, and the limits of all three. It is pure: bytes in, values out.
//
//go:generate protoc --go_out=. --go_opt=paths=source_relative handover.proto
package wire

import (
	"errors"
	"fmt"
	"regexp"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Protocol is the version of the messages. A peer refuses any other: the two ends of a move run the same generation.
const Protocol = 2

// Limits of what a peer may make us hold. They are far above real containers and far below what hurts.
const (
	MaxMessage   = 1 << 20 // one control message, bytes
	MaxTrees     = 64      // directories that travel with a container
	MaxImages    = 1 << 16 // files of an image set: a few per process
	MaxListed    = 1 << 13 // of them in one message, which holds so many whatever their names
	MaxConfig    = 512 << 10
	MaxFailure   = 16 << 10 // text of an error
	MaxImageName = 64
	MaxRequest   = 1 << 10   // slots that are asked for in one message
	MaxOwed      = 1 << 32   // pages that come later, and their slots
	MaxHeld      = 512 << 10 // bytes of bits in one PagesHeld, a multiple of 8
	MaxFindings  = 128       // of a preflight
	MaxFinding   = 1 << 10   // bytes of each text of one
	MaxFiles     = 1024      // files that both hosts must have
)

var (
	// ErrMalformed: the peer sent bytes that are no valid message. The session is of no use any more.
	ErrMalformed = errors.New("malformed message")

	// Compiled when used: a counted repeat takes a millisecond, and every start of the program would pay for it.
	containerID = compiled(`^[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,254}$`)
	moveName    = compiled(`^[0-9a-f]{32}$`)
	imageName   = compiled(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

func compiled(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// Encode turns a message into one frame of the control lane.
func Encode(m *Message) ([]byte, error) {
	frame, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(frame) > MaxMessage {
		return nil, fmt.Errorf("encode message: %d bytes, the limit is %d", len(frame), MaxMessage)
	}
	return frame, nil
}

// Decode is the inverse of Encode. It refuses what no honest peer sends, so that later code need not look again: names are
// fit for paths, counts are within limits, a body is there.
func Decode(frame []byte) (*Message, error) {
	if len(frame) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrMalformed, len(frame), MaxMessage)
	}
	m := new(Message)
	if err := proto.Unmarshal(frame, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := check(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}

func check(m *Message) error {
	switch body := m.GetBody().(type) {
	case nil:
		return errors.New("no body, or one of a later version")
	case *Message_Hello:
		return checkHello(body.Hello)
	case *Message_Ask:
		return checkMove(body.Ask.GetMove())
	case *Message_Images:
		return checkImages(body.Images)
	case *Message_PagesStored:
		return checkFailure(body.PagesStored.GetFailure())
	case *Message_PageRequest:
		if n := len(body.PageRequest.GetSlots()); n > MaxRequest {
			return fmt.Errorf("%d pages asked for at once, the limit is %d", n, MaxRequest)
		}
	case *Message_PagesHeld:
		if n := len(body.PagesHeld.GetBits()); n > MaxHeld {
			return fmt.Errorf("%d bytes of bits in one message, the limit is %d", n, MaxHeld)
		}
	case *Message_Failure:
		return checkFailure(body.Failure)
	case *Message_Aborted:
		return checkFailure(body.Aborted.GetCause())
	case *Message_Prepared:
		return checkFindings(body.Prepared.GetFindings())
	case *Message_Done:
		return checkFindings(body.Done.GetFindings())
	case *Message_Offer:
		return checkFindings(body.Offer.GetFindings())
	}
	return nil
}

func checkFailure(f *Failure) error {
	if len(f.GetText()) > MaxFailure {
		return errors.New("the text of a failure is too long")
	}
	return checkFindings(f.GetFindings())
}

func checkHello(h *Hello) error {
	if h.GetProtocol() != Protocol {
		return nil // its fields may mean something else: the receiver refuses it by its version
	}
	if err := checkMove(h.GetMove()); err != nil {
		return err
	}
	if id := h.GetContainer(); !containerID().MatchString(id) || id == "." || id == ".." {
		return fmt.Errorf("container id %q", h.GetContainer())
	}
	if len(h.GetConfig()) > MaxConfig {
		return fmt.Errorf("a config of %d bytes, the limit is %d", len(h.GetConfig()), MaxConfig)
	}
	if len(h.GetTrees()) == 0 || len(h.GetTrees()) > MaxTrees {
		return fmt.Errorf("%d trees, the limit is %d", len(h.GetTrees()), MaxTrees)
	}
	for _, tree := range h.GetTrees() {
		if !ValidImageName(tree.GetName()) {
			return fmt.Errorf("tree name %q", tree.GetName())
		}
	}
	if n := len(h.GetNeeds().GetFiles()); n > MaxFiles {
		return fmt.Errorf("%d files that must be here, the limit is %d", n, MaxFiles)
	}
	return nil
}

func checkMove(name string) error {
	if !moveName().MatchString(name) {
		return fmt.Errorf("move name %q", name)
	}
	return nil
}

func checkImages(images *Images) error {
	if images.GetOwedPages() > MaxOwed || images.GetOwedSlot() > MaxOwed || images.GetOwedPages() > 0 && images.GetOwedSlot() == 0 {
		return fmt.Errorf("%d pages owed from slot %d on", images.GetOwedPages(), images.GetOwedSlot())
	}
	if len(images.GetFiles()) > MaxListed {
		return fmt.Errorf("%d image files in one message, the limit is %d", len(images.GetFiles()), MaxListed)
	}
	seen := make(map[string]bool, len(images.GetFiles()))
	for _, file := range images.GetFiles() {
		if !ValidImageName(file.GetName()) || seen[file.GetName()] {
			return fmt.Errorf("image file name %q", file.GetName())
		}
		seen[file.GetName()] = true
	}
	return nil
}

// ValidImageName tells whether a name may become a file of an image set: one path component of plain characters.
func ValidImageName(name string) bool {
	return len(name) <= MaxImageName && imageName().MatchString(name)
}
