package handover

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

func finding(severity, code string) *wire.Finding {
	return &wire.Finding{Severity: severity, Code: code, Text: "there is " + code, Cure: "mend " + code}
}

// A move that would fail is refused with all that both hosts have to say, and neither has been touched.
func TestPushNamesEveryBlockerOfBothHosts(t *testing.T) {
	for name, c := range map[string]struct {
		source, peer []*wire.Finding
		says         []string
	}{
		"the source's": {[]*wire.Finding{finding("blocker", "io-uring"), finding("warning", "unrelated"), finding("blocker", "mptcp")}, nil, []string{"io-uring", "mptcp"}},
		"the peer's":   {nil, []*wire.Finding{finding("blocker", "bridge"), finding("note", "other")}, []string{"bridge"}},
		"both":         {[]*wire.Finding{finding("blocker", "io-uring")}, []*wire.Finding{finding("blocker", "bridge"), finding("blocker", "log-file")}, []string{"io-uring", "bridge", "log-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.finds, w.peerFinds = newCable(-1), c.source, c.peer
			result := w.push(t.Context(), true)
			if result.Outcome != report.Refused || result.Outcome.ExitCode() != 4 {
				t.Errorf("outcome %s (%s)", result.Outcome, result.Error)
			}
			var codes []string
			for _, f := range result.Findings {
				codes = append(codes, f.Code)
			}
			if !slices.Equal(codes, c.says) {
				t.Errorf("findings %v, want %v", codes, c.says)
			}
			for _, says := range c.says {
				if !strings.Contains(result.Error, "there is "+says+": mend "+says) {
					t.Errorf("%q does not name %s", result.Error, says)
				}
			}
			if source, peer := w.states(); source != running || peer != absent || len(c.source) > 0 && w.reached("reserve") {
				t.Errorf("source %s, peer %s, steps %v", source, peer, w.steps)
			}
			if text := w.story(journal.Peer); !strings.Contains(text, "no such file") {
				t.Errorf("the peer's journal: %s", text)
			}
		})
	}
}

// What this host says counts, whether or not the peer can be asked on top.
func TestPushIsRefusedWithoutAPeer(t *testing.T) {
	w := newWorld(t)
	w.link, w.finds = newCable(0), []*wire.Finding{finding("blocker", "io-uring")}
	if result := w.push(t.Context(), false); result.Outcome != report.Refused || !strings.Contains(result.Error, "io-uring") {
		t.Errorf("%s: %s", result.Outcome, result.Error)
	}
}

// Warnings stop nothing, and are told.
func TestPushTellsWarnings(t *testing.T) {
	w := newWorld(t)
	w.link, w.finds = newCable(-1), []*wire.Finding{finding("warning", "unrelated"), finding("note", "tracker")}
	w.lacks = []*wire.Finding{finding("warning", "bridge")}
	result := w.push(t.Context(), true)
	if result.Outcome != report.Moved || len(result.Warnings) == 0 || !strings.Contains(result.Warnings[0], "unrelated") || len(result.Findings) > 0 {
		t.Errorf("%+v", result)
	}
	if last := result.Warnings[max(0, len(result.Warnings)-1)]; len(result.Warnings) != 2 || !strings.HasPrefix(last, "b: ") || !strings.Contains(last, "bridge") {
		t.Errorf("of what it lacks there: %q", result.Warnings)
	}
}

// A check is a question: no id is taken, no journal is written.
func TestCheckLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.link, w.finds, w.peerFinds = newCable(-1), []*wire.Finding{finding("note", "tracker")}, []*wire.Finding{finding("warning", "file-differs")}
	check := func() ([]report.Finding, *wire.Offer, error) {
		c := &Check{Move: twinMove, Container: w, Dial: w.dial(true), Log: slog.New(slog.DiscardHandler)}
		return c.Run(t.Context())
	}
	found, offer, err := check()
	if err != nil || len(found) != 2 || offer.GetDestination() != "b" || found[0].Host != "a" || found[1].Host != "b" {
		t.Errorf("%v, %v, %v", found, offer, err)
	}
	w.busy.Wait()
	w.link, w.peerFinds = newCable(-1), []*wire.Finding{finding("blocker", "bridge"), finding("note", "other")}
	if found, _, err = check(); err != nil || len(found) != 3 || found[1].Severity != report.Blocker {
		t.Errorf("%v, %v", found, err)
	}
	w.busy.Wait()
	if w.reached("reserve") || !strings.Contains(w.story(journal.Peer), "no such file") {
		t.Errorf("steps %v, journal %s", w.steps, w.story(journal.Peer))
	}
	w.link = newCable(0)
	if found, _, err = check(); !errors.Is(err, ErrLinkLost) || len(found) != 1 {
		t.Errorf("without a link: %v, %v", found, err)
	}
}
