package main

import "github.com/livemigrate/migrate/internal/failpoint"

// step is where a move is stopped for a fault.
type step struct {
	point failpoint.Point
	short string // the fault of the short form
	what  string // what the move has just come to
	late  bool   // the source may have heard that the container is the peer's: what that host then suffers is no matter of the move
}

// in tells whether a move in this mode has the step.
func (s step) in(mode string) bool {
	switch s.point {
	case failpoint.SourceRound, failpoint.PeerPages:
		return mode != "stop-copy" && mode != "post-copy"
	case failpoint.SourceFollow, failpoint.PeerPaid:
		return mode == "post-copy" || mode == "hybrid"
	case failpoint.PeerDone: // there Done comes twice
		return mode != "post-copy" && mode != "hybrid"
	}
	return true
}

// steps are all there are, in the order of a move.
var steps = []step{
	{point: failpoint.SourceHello, short: "stalled", what: "the session is open"},
	{point: failpoint.PeerOffer, short: "peer", what: "the peer has taken the id"},
	{point: failpoint.SourceSync, short: "altered", what: "files go"},
	{point: failpoint.PeerSynced, short: "memory", what: "files are there"},
	{point: failpoint.SourcePrepare, short: "ssh", what: "the peer is told to prepare"},
	{point: failpoint.PeerPrepared, short: "criu-peer", what: "the peer has prepared"},
	{point: failpoint.SourceRound, short: "hiccup", what: "memory goes"},
	{point: failpoint.PeerPages, short: "disk", what: "memory is there"},
	{point: failpoint.SourceRefresh, short: "hiccup", what: "what has changed in files goes"},
	{point: failpoint.SourceDump, short: "criu-source", what: "CRIU is told to dump"},
	{point: failpoint.SourceFrozen, short: "peer", what: "frozen"},
	{point: failpoint.SourceDumped, short: "source", what: "dumped"},
	{point: failpoint.SourceFinal, short: "push", what: "the last memory was read"},
	{point: failpoint.SourceReady, short: "clock", what: "everything was sent"},
	{point: failpoint.PeerRestore, short: "feeder", what: "everything is there"},
	{point: failpoint.PeerNamed, short: "peer", what: "deleted files have names"},
	{point: failpoint.PeerRestored, short: "reboot", what: "restored"},
	{point: failpoint.PeerReady, short: "cut", what: "Ready was sent"},
	{point: failpoint.SourceCommit, short: "criu-peer", what: "commit-sent is recorded"},
	{point: failpoint.SourceCommitted, short: "serve", what: "Commit was sent"},
	{point: failpoint.PeerCommitted, short: "peer", what: "committed is recorded"},
	{point: failpoint.PeerResume, short: "peer", what: "CRIU asks whether to let it run"},
	{point: failpoint.PeerRunning, short: "reboot", what: "running is recorded"},
	{point: failpoint.PeerNetwork, short: "source", what: "the network is up"},
	{point: failpoint.PeerOpened, short: "altered", what: "it runs at the peer"},
	{point: failpoint.PeerDone, short: "push", what: "Done was sent", late: true},
	{point: failpoint.SourceDone, short: "peer", what: "Done has come", late: true},
	{point: failpoint.SourceFollow, what: "memory follows"},
	{point: failpoint.PeerPaid, what: "the last memory has come"},
	{point: failpoint.SourceKilled, short: "source", what: "the source's copy is dead", late: true},
	{point: failpoint.SourceDelete, short: "cut", what: "done is recorded", late: true},
	{point: failpoint.PeerFeeding, short: "feeder", what: "memory is put in its place", late: true},
	{point: failpoint.PeerMonitor, short: "hiccup", what: "the monitor takes over", late: true},
}
