package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/unlinked"
	"github.com/livemigrate/migrate/transport"
)

// Places are the directories of a host that moves use, and its program for networks.
type Places struct {
	Root     string // state root of the runtime
	Journals string // survives a reboot
	Bundles  string // peer: where containers are received

	NetworkHook string // program that connects network namespaces; "" for none
}

// Defaults of a host.
const (
	DefaultRoot     = "/run/migrate"
	DefaultJournals = "/var/lib/migrate/journal"
	DefaultBundles  = "/var/lib/migrate/bundles"
)

// Fill puts the defaults where nothing is set.
func (p Places) Fill() Places {
	if p.Root == "" {
		p.Root = DefaultRoot
	}
	if p.Journals == "" {
		p.Journals = DefaultJournals
	}
	if p.Bundles == "" {
		p.Bundles = DefaultBundles
	}
	return p
}

// own are the directories that moves write to.
func (p Places) own() []string {
	return []string{p.Root, p.run(), filepath.Dir(p.Journals), p.Journals, p.Bundles, p.spoolParent()}
}

// isWithin tells whether a path, links followed, is a directory or in it.
func isWithin(path, dir string) bool {
	if followed, err := filepath.EvalSymlinks(path); err == nil {
		path = followed
	}
	return isBeneath(path, dir)
}

// isBeneath is isWithin by the names alone.
func isBeneath(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// run is where sockets, locks and spools of moves are: beside the state root, which holds nothing but containers.
func (p Places) run() string { return filepath.Clean(p.Root) + "-handover" }

// socket is the unix socket of a session's keeper. The token itself must not be readable from a path.
func (p Places) socket(token transport.Token) string { return p.socketOf(token.PublicName()) }

func (p Places) socketOf(session string) string { return filepath.Join(p.run(), session+".sock") }

// make creates the directory of sockets and spools.
func (p Places) make() error {
	if err := os.MkdirAll(p.run(), 0o700); err != nil {
		return fmt.Errorf("make directory for moves: %w", err)
	}
	return nil
}

// spool makes an empty private directory for images, in memory where that can be had: images hold all that the container
// knows, and a disk is slower than the link.
func (p Places) spool(move string) (string, error) {
	if err := p.make(); err != nil {
		return "", err
	}
	dir := p.spoolPath(move)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make image directory: %w", err)
	}
	return dir, nil
}

// removeSpool removes what a crash has left of a move's spool.
func (p Places) removeSpool(move string) error { return os.RemoveAll(p.spoolPath(move)) }

func (p Places) spoolPath(move string) string {
	return filepath.Join(p.spoolParent(), spoolPrefix+move)
}

func (p Places) spoolParent() string {
	parent := p.run()
	if _, err := os.Stat(parent); err != nil { // not made yet
		parent = filepath.Dir(parent)
	}
	if isTmpfs(parent) || !isTmpfs("/dev/shm") {
		return p.run()
	}
	return "/dev/shm"
}

func isTmpfs(path string) bool {
	kind, _, err := fs.Kind(path)
	return err == nil && kind == fs.Tmpfs
}

const spoolPrefix = "migrate-images-"

// clear removes what a crash has left of a move at its peer: images, and the names that deleted files had for its restore.
func (p Places) clear(move string) error {
	return errors.Join(unlinked.Clear(p.ledgerPath(move)), p.removeSpool(move))
}

// ledger is where the names of deleted files are noted, where a reboot leaves them, too. Its directory is made.
func (p Places) ledger(move string) (string, error) {
	path := p.ledgerPath(move)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make directory for names of deleted files: %w", err)
	}
	return path, nil
}

func (p Places) ledgerPath(move string) string {
	return filepath.Join(filepath.Dir(p.Journals), "deleted", move)
}

// prune makes room among the journals, which only grows if it fails.
func (p Places) prune(role journal.Role, container string, log *slog.Logger) {
	if err := journal.Prune(p.Journals, journal.Move{Role: role, Container: container, Root: p.Root}); err != nil {
		log.Warn("old journals stay", "error", err)
	}
}

// index is where the index of a tree is kept between moves, on either side.
func (p Places) index(tree string) (string, error) {
	dir := filepath.Join(filepath.Dir(p.Journals), "index")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make directory for indexes: %w", err)
	}
	sum := sha256.Sum256([]byte(filepath.Clean(tree)))
	return filepath.Join(dir, hex.EncodeToString(sum[:12])), nil
}
