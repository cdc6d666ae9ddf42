package keeper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/transport"
)

// session shows a transport's session as the handover wants it: the first lane is for files, the others for images.
type session struct {
	transport.Session
}

// filesLane is how many lanes a session has besides those for images.
const filesLane = 1

// noLanes as the number of lanes for images makes a session of a question: it has none at all.
const noLanes = -filesLane

// Proof is the digest of the token, which is a secret.
func (s session) Proof() string {
	token := s.Token()
	sum := sha256.Sum256(token[:])
	return hex.EncodeToString(sum[:])
}

func (s session) Control() handover.Channel { return s.Session.Control() }

// Files is nil where the other side has opened no lanes.
func (s session) Files() handover.Channel {
	if len(s.Lanes()) < filesLane {
		return nil
	}
	return files{s.Lanes()[0]}
}

// files is a lane whose loss the handover knows, when it is noticed there before it is anywhere else.
type files struct{ handover.Channel }

func (f files) Send(ctx context.Context, parts ...[]byte) error {
	return known(f.Channel.Send(ctx, parts...))
}

func (f files) Recv(ctx context.Context, buf []byte) ([]byte, error) {
	frame, err := f.Channel.Recv(ctx, buf)
	return frame, known(err)
}

func known(err error) error {
	if errors.Is(err, transport.ErrLinkLost) {
		return fmt.Errorf("%w: %w", handover.ErrLinkLost, err)
	}
	return err
}

func (s session) Urgent() handover.Channel { return urgent{s.Files()} }

// urgent is a lane that is not held back.
type urgent struct{ handover.Channel }

func (u urgent) Send(ctx context.Context, parts ...[]byte) error {
	return u.Channel.Send(transport.Urgent(ctx), parts...)
}

func (s session) Images() []handover.Channel {
	var images []handover.Channel
	for i, lane := range s.Lanes() {
		if i >= filesLane {
			images = append(images, lane)
		}
	}
	return images
}
