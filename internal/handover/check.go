package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// Check asks both hosts whether a move would work, and begins none.
type Check struct {
	Move      string // a name that no move has: 32 hexadecimal digits
	Container Container
	Dial      Dial
	Mode      Mode // empty: Auto
	Log       *slog.Logger
}

// Run asks. The findings are those of both hosts. An error is a host that could not be asked: the findings are then the
// source's alone, if there are any.
func (c *Check) Run(ctx context.Context) ([]report.Finding, *wire.Offer, error) {
	hello, ours, err := c.Container.Hello(ctx)
	if err != nil {
		return nil, nil, err
	}
	if c.Mode == "" {
		c.Mode = Auto
	}
	hello.Protocol, hello.Move, hello.Mode, hello.Check = wire.Protocol, c.Move, string(c.Mode), true
	findings := found(ours, hello.GetSource())
	session, err := c.Dial(ctx, ToMove)
	if err != nil {
		return findings, nil, err
	}
	ctx, alarm := context.WithCancelCause(ctx)
	defer alarm(nil)
	t := newTalk(ctx, session.Control(), alarm)
	defer func() {
		t.close()
		if err := session.Close(); err != nil {
			c.Log.Debug("hang up", "error", err)
		}
	}()
	offer, err := greet(ctx, t, hello)
	if _, said := errors.AsType[*wire.RemoteError](err); said && len(wire.FindingsOf(err)) > 0 {
		return append(findings, found(wire.FindingsOf(err), session.Peer())...), nil, nil
	}
	if err != nil {
		return findings, nil, fmt.Errorf("ask the peer: %w", because(ctx, err))
	}
	return append(findings, found(offer.GetFindings(), offer.GetDestination())...), offer, nil
}

// greet says hello and returns the offer.
func greet(ctx context.Context, t *talk, hello *wire.Hello) (*wire.Offer, error) {
	if err := t.send(ctx, &wire.Message{Body: &wire.Message_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	return expect(ctx, t, (*wire.Message).GetOffer)
}

// found is what crossed hosts as reports have it.
func found(findings []*wire.Finding, host string) []report.Finding {
	var all []report.Finding
	for _, f := range findings {
		all = append(all, report.Finding{
			Severity: report.Severity(f.GetSeverity()), Code: f.GetCode(), Host: line.Printable(host), Text: f.GetText(),
			Pid: int(f.GetPid()), Process: f.GetProcess(), Cure: f.GetCure(),
		})
	}
	return all
}
