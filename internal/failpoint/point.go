// Package failpoint names the steps of a move. A test stops a move at one of them, does something bad, and lets it go on.
//
// Programs that are built with the tag "failpoint" look at each step for a file that names the step, in the directory that
// the environment variable MIGRATE_FAILPOINTS names. The first line of the file says what happens there, once:
//
//	stop           the step waits until NAME.hit, as the file is called from then on, is removed
//	delay 200ms    the step takes so much longer
//	kill           the process kills itself
//	error TEXT     the step fails, where it can
//
// Every other build has an empty Hit, and nothing is left of its calls.
package failpoint

// Point is a step of a move.
type Point string

// The steps at the source, in their order.
const (
	SourceHello     Point = "source.hello"     // the session is open; Hello goes next
	SourceSync      Point = "source.sync"      // the peer expects a tree
	SourcePrepare   Point = "source.prepare"   // all trees are there; Prepare goes next
	SourceRound     Point = "source.round"     // before a round of memory
	SourceRefresh   Point = "source.refresh"   // before what has changed in files is sent again
	SourceDump      Point = "source.dump"      // CRIU is about to dump; the freeze is next
	SourceFrozen    Point = "source.frozen"    // no process runs any more
	SourceDumped    Point = "source.dumped"    // CRIU stands in post-dump
	SourceFinal     Point = "source.final"     // the last memory was sent, or promised
	SourceReady     Point = "source.ready"     // everything was sent; Ready is awaited
	SourceCommit    Point = "source.commit"    // commit-sent is in the journal; Commit goes next
	SourceCommitted Point = "source.committed" // Commit was sent; Done is awaited
	SourceDone      Point = "source.done"      // Done has come
	SourceFollow    Point = "source.follow"    // the container runs at the peer, memory follows
	SourceKilled    Point = "source.killed"    // the processes are dead, which the journal does not say yet
	SourceDelete    Point = "source.delete"    // done is in the journal; the rest is removed next
	PeerOffer       Point = "peer.offer"       // the id is taken, begin is in the journal; Offer goes next
	PeerSynced      Point = "peer.synced"      // a tree is applied
	PeerPrepared    Point = "peer.prepared"    // mounts, cgroups, network, feeder and CRIU are there
	PeerPages       Point = "peer.pages"       // a round of memory is stored
	PeerRestore     Point = "peer.restore"     // images and pages are complete; CRIU's restore is next
	PeerNamed       Point = "peer.named"       // deleted files have names for the time of the restore
	PeerRestored    Point = "peer.restored"    // the processes exist, stopped; Ready goes next
	PeerReady       Point = "peer.ready"       // Ready was sent; Commit is awaited
	PeerCommitted   Point = "peer.committed"   // Commit has come, committed is in the journal
	PeerResume      Point = "peer.resume"      // CRIU has done its part, and the freezer does not hold the processes yet
	PeerRunning     Point = "peer.running"     // running, or owing, is in the journal; the network is next
	PeerNetwork     Point = "peer.network"     // the link is on its bridge; the first instruction is next
	PeerOpened      Point = "peer.opened"      // the container runs; Done goes next
	PeerDone        Point = "peer.done"        // Done was sent
	PeerPaid        Point = "peer.paid"        // the last memory that followed has come, which the journal does not say yet
	PeerFeeding     Point = "peer.feeding"     // the container runs while it is given its memory
	PeerMonitor     Point = "peer.monitor"     // the keeper is about to become the monitor
)
