package handover

import (
	"context"
	"errors"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// greet opens the session and asks whether the peer would take the container. A no at this point, from here or from there, is
// a refusal: nothing has been touched on either side. When this host says no, the peer is asked all the same for what it
// would say, so that the user learns of everything at once.
func (p *Push) greet(ctx context.Context, undo *rollback) error {
	p.yield(ctx)
	hello, findings, err := p.Container.Hello(ctx)
	if err != nil {
		return &refusedError{err}
	}
	p.hello = hello
	p.hello.Protocol, p.hello.Move, p.hello.Mode = wire.Protocol, p.Move, string(p.Mode)
	p.hello.RetryMs = uint64(p.Retry.Milliseconds())
	p.note(findings, p.hello.GetSource())
	refusal := refuse(findings)
	p.hello.Check = refusal != nil
	if p.session, err = p.Dial(ctx, ToMove); err != nil {
		if refusal != nil {
			p.Log.Info("the peer could not be asked", "error", err)
			return refusal
		}
		return err
	}
	alarm := p.bell.ring
	if refusal != nil {
		alarm = func(error) {} // what the peer says comes on top
	}
	p.talk = newTalk(ctx, p.session.Control(), alarm)
	undo.Add("close the session", func(context.Context) error {
		p.talk.close()
		return p.session.Close()
	})
	if err := failpoint.Hit(ctx, failpoint.SourceHello); err != nil {
		return err
	}
	offer, err := greet(ctx, p.talk, p.hello)
	p.note(wire.FindingsOf(err), p.session.Peer())
	if refusal != nil {
		if isRefusal(err) {
			return &refusedError{errors.Join(refusal, err)}
		}
		return refusal
	}
	if err != nil {
		return err
	}
	p.offer = offer
	p.Container.Offered()
	undo.Add("abort the peer", p.abort)
	p.note(offer.GetFindings(), offer.GetDestination())
	p.Log.Info("the peer takes it", "destination", p.offer.GetDestination(), "kernel", p.offer.GetKernel(),
		"migrate", p.offer.GetMigrateVersion(), "criu", p.offer.GetCriuVersion())
	return nil
}

// refuse is the refusal that findings of this host call for.
func refuse(findings []*wire.Finding) error {
	if len(wire.Blockers(findings)) == 0 {
		return nil
	}
	return &refusedError{&wire.RefusalError{Findings: findings}}
}

// note keeps the blockers for the result, and tells of warnings.
func (p *Push) note(findings []*wire.Finding, host string) {
	for _, f := range found(findings, host) {
		switch f.Severity {
		case report.Blocker:
			p.blockers = append(p.blockers, f)
		case report.Warning:
			p.Record.Warn(f.Host + ": " + f.String())
		default:
			p.Log.Info("preflight", "host", f.Host, "code", f.Code, "note", f.String())
		}
	}
}
