package handover

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

func TestMoveLeavesExactlyTheOneAtThePeer(t *testing.T) {
	w := newWorld(t)
	w.link = newCable(-1)
	result := w.push(t.Context(), true)
	if result.Outcome != report.Moved || result.Error != "" {
		t.Fatalf("got %+v", result)
	}
	if source, peer := w.states(); source != absent || peer != running {
		t.Errorf("source %s, peer %s", source, peer)
	}
	if got := w.story(journal.Source); got != "begin commit-sent done" {
		t.Errorf("source's journal: %s", got)
	}
	if got := w.story(journal.Peer); got != "begin committed running" {
		t.Errorf("peer's journal: %s", got)
	}
}

// A name that CRIU makes during the dump is no good to a restore when it comes to the peer never.
func TestNamesMadeByTheDumpAreSentAfterIt(t *testing.T) {
	w := newWorld(t)
	w.link, w.linked = newCable(-1), true
	if result := w.push(t.Context(), true); result.Outcome != report.Moved {
		t.Fatalf("got %+v", result)
	}
	steps := strings.Join(w.steps, " ")
	if strings.Count(steps, "delta") != 2 {
		t.Errorf("steps: %s", steps)
	}
}

// Whatever fails before COMMIT, on whichever side: the service goes on where it was.
func TestPushKeepsSourceWhenAStepFails(t *testing.T) {
	for step, outcome := range map[string]report.Outcome{
		"hello": report.Refused, "reserve": report.Refused,
		"pass": report.Kept, "sync": report.Kept, "prepare": report.Kept, "dump": report.Kept, lateDump: report.Kept,
		"delta": report.Kept, "stdio": report.Kept, "restore": report.Kept, "open": report.Kept,
	} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.failAt = newCable(-1), step
			result := w.push(t.Context(), true)
			if result.Outcome != outcome {
				t.Errorf("outcome %s, want %s (%s)", result.Outcome, outcome, result.Error)
			}
			if !strings.Contains(result.Error, step+": twin fails") {
				t.Errorf("the error hides its cause: %q", result.Error)
			}
			if source, peer := w.states(); source != running || peer != absent {
				t.Errorf("source %s, peer %s", source, peer)
			}
		})
	}
}

// The remains at the source are a nuisance; the move itself has succeeded.
func TestMoveSucceedsThoughTheSourceCannotBeRemoved(t *testing.T) {
	w := newWorld(t)
	w.link, w.failAt = newCable(-1), "destroy"
	if result := w.push(t.Context(), true); result.Outcome != report.Moved || result.Error == "" {
		t.Errorf("got %+v", result)
	}
}

func TestCancelBeforeCommitKeepsSource(t *testing.T) {
	w := newWorld(t)
	w.link = newCable(-1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	result := w.push(ctx, true)
	if source, peer := w.states(); source != running || peer != absent {
		t.Errorf("source %s, peer %s: %+v", source, peer, result)
	}
}

// The link lives, but the peer's disk or CRIU hangs: the service is not away for good.
func TestPeerThatHangsDoesNotKeepTheServiceDown(t *testing.T) {
	for step, outcome := range map[string]report.Outcome{
		"delta": report.Kept, "open": report.Kept, "open for good": report.Unknown,
	} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.hangAt = newCable(-1), step
				began := time.Now()
				result := w.push(t.Context(), true)
				if result.Outcome != outcome || time.Since(began) > 2*time.Minute {
					t.Errorf("after %v: %+v", time.Since(began), result)
				}
				source, peer := w.states()
				if outcome == report.Kept && (source != running || peer != absent) {
					t.Errorf("source %s, peer %s: %s", source, peer, result.Error)
				}
			})
		})
	}
}

// Who knows no more than a move's name can't end it.
func TestStrangerIsNotAnswered(t *testing.T) {
	w := newWorld(t)
	j, err := journal.Create(w.journals[1], journal.Move{Name: twinMove, Role: journal.Peer, Container: "web", Token: "another proof"})
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	source, peer := newSessions(newCable(-1))
	w.busy.Go(func() { _ = w.newDesk().Answer(context.Background(), peer) })
	v, err := askOnce(t.Context(), func(context.Context, Why) (Session, error) { return source, nil }, twinMove)
	if v != undecided || !errors.Is(err, wire.ErrUnknownMove) || w.reached("discard remains") {
		t.Errorf("got %v, %v", v, err)
	}
}

// The peer had it, and its host was started anew since: the frozen source may hold the last copy of its memory.
func TestRebootOfThePeerDoesNotCostTheLastCopy(t *testing.T) {
	w := newWorld(t)
	j, err := journal.Create(w.journals[1], journal.Move{Name: twinMove, Role: journal.Peer, Container: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(journal.Running, ""); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if verdict, err := Settle(t.Context(), twinHost{w}, w.journals[1], twinMove); err != nil || verdict.GetDone() == nil {
		t.Fatalf("before the reboot: %v, %v", verdict, err)
	}
	anotherBoot(t, journal.Path(w.journals[1], twinMove, journal.Peer))
	if verdict, err := Settle(t.Context(), twinHost{w}, w.journals[1], twinMove); !errors.Is(err, wire.ErrDiedHere) {
		t.Errorf("after the reboot: %v, %v", verdict, err)
	}
}

// anotherBoot makes a journal look as if its records were written before a reboot.
func anotherBoot(t *testing.T, path string) {
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	boot := regexp.MustCompile(`"boot":"[0-9a-f-]*"`)
	for at := 0; binary.LittleEndian.Uint32(content[at:]) != 0; {
		length := int(binary.LittleEndian.Uint32(content[at:]))
		record := content[at+8 : at+8+length]
		copy(record, boot.ReplaceAllFunc(record, func(b []byte) []byte { return bytes.ReplaceAll(b, b[10:14], []byte("zzzz")) }))
		binary.LittleEndian.PutUint32(content[at+4:], crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)))
		at += 8 + length
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The move failed and the thaw did too: the user is told that the service is down, and resolve can still end it.
func TestContainerThatCannotBeThawedIsNotCalledRunning(t *testing.T) {
	for _, step := range []string{"delta", "restore", "open"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.failAt, w.thawAt = newCable(-1), step, true
			result := w.push(t.Context(), true)
			if result.Outcome != report.Unknown || !strings.Contains(result.Error, ErrStillFrozen.Error()) || strings.Contains(result.Error, "\n") {
				t.Errorf("got %+v", result)
			}
			if source, _ := w.states(); source != frozen {
				t.Errorf("source %s", source)
			}
			if outcome, err := w.resolve(true, NoForce); outcome != report.Kept || err != nil {
				t.Errorf("resolve: %s, %v", outcome, err)
			}
			if source, peer := w.states(); source != running || peer != absent {
				t.Errorf("source %s, peer %s", source, peer)
			}
		})
	}
}

// With --keep the source's copy stays for a look, but not one that could ever run.
func TestKeptCopyIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for cut := range 16 {
			w := newWorld(t)
			w.link, w.keep = newCable(cut), true
			if w.push(t.Context(), false).Outcome == report.Unknown {
				synctest.Wait()
				if _, err := w.resolve(true, NoForce); err != nil {
					t.Errorf("cut %d: %v", cut, err)
				}
			}
			synctest.Wait()
			if source, peer := w.states(); peer == running && source != ended {
				t.Errorf("cut %d: the source's copy is %s", cut, source)
			}
		}
	})
}

// A source that was restarted has nothing to run on: nobody is told that it does.
func TestResolveSaysThatNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	j, err := journal.Create(w.journals[0], journal.Move{Name: twinMove, Role: journal.Source, Container: "web"})
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	story, err := journal.Read(w.journals[0], twinMove, journal.Source)
	if err != nil {
		t.Fatal(err)
	}
	if outcome, err := (&Resolve{Story: story}).Run(t.Context()); outcome != report.Kept || !errors.Is(err, ErrGone) {
		t.Errorf("got %s, %v", outcome, err)
	}
}

// The link is cut after every possible number of control frames. Wherever that is, there is one running copy at the end,
// or a frozen one that Resolve turns into exactly one as soon as the peer can be asked.
func TestLinkCutAnywhereNeverMakesTwoNorNone(t *testing.T) {
	for _, reachable := range []bool{true, false} {
		for cut := range 24 {
			synctest.Test(t, func(t *testing.T) { cutOnce(t, newWorld(t), cut, reachable) })
		}
	}
}

func cutOnce(t *testing.T, w *world, cut int, reachable bool) {
	w.link = newCable(cut)
	result := w.push(t.Context(), reachable)
	synctest.Wait()
	source, peer := w.states()
	if result.Outcome == report.Unknown {
		if reachable {
			t.Errorf("cut %d: unknown although the peer can be asked: %s", cut, result.Error)
		}
		if source != frozen {
			t.Errorf("cut %d: unknown, but the source is %s", cut, source)
		}
		outcome, err := w.resolve(false, NoForce)
		if outcome != report.Unknown || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("cut %d: resolve without a peer: %s, %v", cut, outcome, err)
		}
		if outcome, err = w.resolve(true, NoForce); err != nil {
			t.Errorf("cut %d: resolve: %s, %v", cut, outcome, err)
		}
		source, peer = w.states()
	}
	if (source == running) == (peer == running) {
		t.Errorf("cut %d: source %s, peer %s, %+v\nsource: %s\npeer: %s", cut, source, peer, result, w.story(journal.Source), w.story(journal.Peer))
	}
	if peer == running && source != absent {
		t.Errorf("cut %d: the source's copy is still %s", cut, source)
	}
}

// The user says which side is dead, and exactly that one is given up.
func TestResolveByForce(t *testing.T) {
	for force, want := range map[Force]copyState{ForceSource: running, ForcePeer: absent} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.link = newCable(8)
			for cut := 8; w.push(t.Context(), false).Outcome != report.Unknown; cut++ {
				w = newWorld(t)
				w.link = newCable(cut)
			}
			synctest.Wait()
			w.set(&w.peer, absent) // fenced
			if _, err := w.resolve(false, force); err != nil {
				t.Fatal(err)
			}
			if source, _ := w.states(); source != want {
				t.Errorf("force %d: source %s, want %s", force, source, want)
			}
		})
	}
}

// The process that received the container died between "committed" and "running": its half must be dead before the source
// hears "aborted".
func TestPeerProcessGoneBeforeRunningMeansAborted(t *testing.T) {
	w := newWorld(t)
	j, err := journal.Create(w.journals[1], journal.Move{Name: twinMove, Role: journal.Peer, Container: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Note(journal.Committed, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Settle(t.Context(), twinHost{w}, w.journals[1], twinMove); err == nil {
		t.Error("settled although the process is alive")
	}
	j.Close()
	w.source, w.peer = frozen, frozen
	verdict, err := Settle(t.Context(), twinHost{w}, w.journals[1], twinMove)
	if err != nil || verdict.GetAborted() == nil || !w.reached("discard remains") {
		t.Errorf("got %v, %v", verdict, err)
	}
	if got := w.story(journal.Peer); got != "begin committed aborted" {
		t.Errorf("journal: %s", got)
	}
}
