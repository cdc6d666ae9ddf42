package keeper

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/unlinked"
)

// sweep removes what keepers that were killed have left on this host and nobody will come back for: the images of moves that
// have ended, the names that deleted files had for their restore, and the sockets that nobody listens at. What a move that has
// not ended needs stays.
func (p Places) sweep(log *slog.Logger) {
	spools, _ := filepath.Glob(p.spoolPath("*")) // the pattern is a good one
	for _, spool := range spools {
		_, move, _ := strings.Cut(filepath.Base(spool), spoolPrefix)
		if !p.over(move) {
			continue
		}
		log.Info("removing the images of a move whose keeper was killed", "move", move)
		if err := os.RemoveAll(spool); err != nil {
			log.Warn("images stay", "error", err)
		}
	}
	ledgers, _ := filepath.Glob(p.ledgerPath("*"))
	for _, ledger := range ledgers {
		if p.over(filepath.Base(ledger)) {
			if err := unlinked.Clear(ledger); err != nil {
				log.Warn("names of deleted files stay", "error", err)
			}
		}
	}
	marks, _ := filepath.Glob(p.networkMark("*") + "*") // one that was half written, too
	for _, mark := range marks {
		move, _, _ := strings.Cut(filepath.Base(mark), networkSuffix)
		if info, err := os.Stat(mark); err == nil && time.Since(info.ModTime()) > oldMark && p.over(move) {
			_ = os.Remove(mark)
		}
	}
	sockets, _ := filepath.Glob(p.socketOf("*"))
	for _, socket := range sockets {
		if isDead(socket) {
			_ = errors.Join(os.Remove(socket), os.Remove(lanesSocket(socket))) // the next sweep finds what stays
		}
	}
}

// Sweep removes what keepers that were killed have left here, also by a reboot of the host.
func (r *Router) Sweep() { r.Places.sweep(r.Log) }

// oldMark is the age up to which the source of a move that has ended here may still ask, and the container is connected then.
const oldMark = time.Hour

// over tells whether a move has ended here, on either side, and no process is at work on it.
func (p Places) over(move string) bool {
	found := false
	for _, role := range []journal.Role{journal.Source, journal.Peer} {
		j, err := journal.Open(journal.Path(p.Journals, move, role))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false
		}
		ended := j.Last().Ends()
		if err := j.Close(); err != nil || !ended {
			return false
		}
		found = true
	}
	return found
}

// youngSocket is the age up to which a socket may be one that its keeper has not begun to listen at.
const youngSocket = 10 * time.Second

// isDead tells whether nobody listens at a socket, nor is going to.
func isDead(socket string) bool {
	info, err := os.Lstat(socket)
	if err != nil || time.Since(info.ModTime()) < youngSocket {
		return false
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// reap waits for a keeper, which may become a monitor and live for long, and sweeps when it did not end well.
func (r *Router) reap(keeper *exec.Cmd) {
	_, killed := errors.AsType[*exec.ExitError](keeper.Wait())
	if killed {
		r.Places.sweep(r.Log)
	}
}
