package keeper

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
)

// Images are a container's memory: those of a killed keeper go when its move has ended, and only then.
func TestSweepRemovesWhatNobodyComesBackFor(t *testing.T) {
	places := testPlaces(t)
	at := func(n string) string { return "00112233445566778899aabbccdd" + n }
	writeJournal(t, places, journal.Move{Name: at("0001"), Role: journal.Peer}, journal.Committed, journal.Running)
	writeJournal(t, places, journal.Move{Name: at("0002"), Role: journal.Peer}, journal.Committed)
	writeJournal(t, places, journal.Move{Name: at("0003"), Role: journal.Source}, journal.CommitSent)
	writeJournal(t, places, journal.Move{Name: at("0004"), Role: journal.Source}, journal.CommitSent, journal.Done)
	j, err := journal.Create(places.Journals, journal.Move{Name: at("0005"), Role: journal.Source})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Append(journal.Done, ""); err != nil { // its process is at work still
		t.Fatal(err)
	}
	stays := map[string]bool{"0001": false, "0002": true, "0003": true, "0004": false, "0005": true, "0006": true}
	for n := range stays {
		spool, err := places.spool(at(n))
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(spool)
		ledger, err := places.ledger(at(n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ledger, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	places.sweep(slog.New(slog.DiscardHandler))
	for n, want := range stays {
		if _, err := os.Stat(places.spoolPath(at(n))); (err == nil) != want {
			t.Errorf("images of move %s: %v, want them to stay: %v", n, err, want)
		}
		if _, err := os.Stat(places.ledgerPath(at(n))); (err == nil) != want {
			t.Errorf("names of move %s: %v, want them to stay: %v", n, err, want)
		}
	}
}

func TestSweepRemovesSocketsThatNobodyListensAt(t *testing.T) {
	places := testPlaces(t)
	if err := places.make(); err != nil {
		t.Fatal(err)
	}
	listen := func(name string) *net.UnixListener {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(places.run(), name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		t.Cleanup(func() { l.Close() })
		return l
	}
	for _, name := range []string{"dead.sock", "dead.lane", "young.sock"} {
		listen(name).Close()
	}
	listen("alive.sock")
	old := time.Now().Add(-time.Minute)
	for _, name := range []string{"dead.sock", "alive.sock"} {
		if err := os.Chtimes(filepath.Join(places.run(), name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	places.sweep(slog.New(slog.DiscardHandler))
	for name, want := range map[string]bool{"dead.sock": false, "dead.lane": false, "young.sock": true, "alive.sock": true} {
		if _, err := os.Lstat(filepath.Join(places.run(), name)); (err == nil) != want {
			t.Errorf("%s: %v, want it to stay: %v", name, err, want)
		}
	}
}
