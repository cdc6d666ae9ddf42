package handover

import (
	"context"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/wire"
)

// Channel is an ordered, framed, bidirectional stream. One goroutine sends and one receives at a time.
type Channel interface {
	// Send sends the parts as one frame. It blocks while the peer does not read.
	Send(ctx context.Context, parts ...[]byte) error
	// Recv returns the next frame, in buf where it fits.
	Recv(ctx context.Context, buf []byte) ([]byte, error)
}

// Session is an authenticated connection with the other host.
type Session interface {
	Control() Channel
	Files() Channel // carries one pass over a tree at a time; nil in a session that only asks
	// Urgent is the lane of Files without a limit of bandwidth, for little that can't wait. Nobody is using Files any more.
	Urgent() Channel
	Images() []Channel // carry image chunks in any order; at least one, but in a session that only asks
	Peer() string      // who it is, for messages
	Proof() string     // digest of the secret that the source opens all sessions of a move with
	Sent() uint64      // bytes so far
	Close() error
}

// Dial opens a session with the peer.
type Dial func(ctx context.Context, why Why) (Session, error)

// Why is what a session is opened for.
type Why int

// The reasons. All but the first are about a move that has begun.
const (
	ToMove   Why = iota
	ToAsk        // carries the control lane only
	ToFollow     // as ToMove
)

// Container is the running container at the source.
type Container interface {
	// Hello describes it to the peer. Move, Protocol, Mode and Check are filled in by the caller. The findings are of this
	// host's preflight; with a blocker among them the container is not moved.
	Hello(ctx context.Context) (*wire.Hello, []*wire.Finding, error)
	// Offered says that the peer has looked and takes it: what Hello has put on this host for the peer to see can go.
	Offered()
	// Trees are its directories that travel, in the order of Hello.Trees. Their change logs run already.
	Trees() []Tree
	// Memory takes hold of its memory, so that it is sent in rounds while the container runs, and what is left when it has
	// been dumped. nil when that can't be done here: the memory then goes by CRIU's images. Close it in any case. It is
	// called only when the peer can feed.
	Memory(ctx context.Context) (Memory, error)
	// Slow leaves it a part of the processor time that it takes by itself, 0 < part < 1; 1 is all of it again. So does Dump,
	// once it stands still.
	Slow(ctx context.Context, part float64) error
	// Dump stops it and writes its images to dir, which is empty and private. With an open Memory they lack what that
	// sends; after its Close they hold everything. It returns with everything stopped. On an
	// error the container runs as before, or the error wraps ErrStillFrozen.
	Dump(ctx context.Context, dir string, gates DumpGates) (Held, error)
	// Growing names the files in dir that a dump which is still under way has begun, and will do nothing to but append: they
	// are sent meanwhile.
	Growing(dir string) ([]string, error)
	// Stdio tells, while the container stands still, where its descriptors 0-2 pointed and how far its log is.
	Stdio(ctx context.Context) ([]byte, error)
	// SayMoved tells those who watch the container that it runs at the peer, while its memory is still wanted here: it may be
	// made to run on here after all. Destroy, Stop and Commit of the Held say it by themselves.
	SayMoved(ctx context.Context)
	// Destroy removes what is left of the container after it was given away. Its processes may be alive, frozen, or dead.
	Destroy(ctx context.Context) error
	// Stop kills what is left of it and keeps it as a container that has ended.
	Stop(ctx context.Context) error
	// Remainder is its memory after a Promise whose process is gone, to Recall and Follow. Close it.
	Remainder(ctx context.Context) (Memory, error)
	// Revive makes it run on after the process that held it is gone: the end of a failed move without a Held.
	Revive(ctx context.Context) error
}

// Memory is the container's memory at the source. Rounds, then at most one Final or Promise, then Close; one call at a time,
// but for Hurry.
type Memory interface {
	// Round reads what was written since the round before, the first one all there is, while the container runs, and sends it
	// as page frames. When it returns nothing is being sent any more. After an error only Regain or Close may be called.
	Round(ctx context.Context, lanes []Lane) (Round, error)
	// Regain says, after a link was lost, what became of the last round: stored is that the peer has all of it, else it has what
	// is in have. The next Round sends the rest again. The lanes of before are closed at both ends.
	Regain(stored bool, have []Slots)
	// Top is the last slot of the peer's store that anything was ever sent for, or is owed.
	Top() uint64
	// Final sends the rest of what the images lack, and completes them with what the peer needs to put it in its place. The
	// container has been dumped and stands still; files of memory are not touched, because they travel already.
	Final(ctx context.Context, lanes []Lane) (Round, error)
	// Load is what it puts on CRIU. Copied in it is what rounds do not send.
	Load() Load
	// Promise is Final without sending anything: the rest follows when the container runs at the peer. It says what is owed.
	Promise(ctx context.Context) (Owed, error)
	// Follow sends what is owed, after Promise. It may be called again after an error.
	Follow(ctx context.Context, lanes []Lane) (Round, error)
	// Hurry sends promised pages that are waited for, while Follow is at work or before. Slots that are not owed are left out.
	Hurry(ctx context.Context, slots []uint64, lane Lane) (Round, error)
	// Recall says what the peer has of the pages that are owed, from the slot on; everything else is owed again. Neither Follow
	// nor Hurry is at work.
	Recall(slot uint64, have []Slots)
	// Close undoes what was done to the container in order to follow its memory. Its processes may run, stand still or be gone.
	Close() error
}

// Owed are pages that come when the container runs already: a range of slots of the peer's store. 0 pages: none.
type Owed struct {
	Slot, Pages uint64
}

// Slots is a run of them.
type Slots struct {
	First, Pages uint64
}

// Round is what one pass over the memory did.
type Round struct {
	Scanned uint64 // bytes that were read, or compared
	Sent    uint64 // bytes of page frames
	Frames  int
	Took    time.Duration
	Looked  time.Duration // for what was written, before
}

// DumpGates are called on the way of a dump.
type DumpGates struct {
	Freezing func() // the next thing is the freeze: the clock starts
	Frozen   func() // no process of the container runs any more
}

// Held is a dumped container: stopped, its network locked, its memory still there.
type Held interface {
	// Linked tells that the dump itself has made names in the trees, which the deltas may have missed.
	Linked() (bool, error)
	// Commit kills it.
	Commit(ctx context.Context) error
	// Rollback makes it run on. An error that wraps ErrStillFrozen says that it does not.
	Rollback(ctx context.Context) error
}

// Tree is one directory at the source.
type Tree interface {
	// Pass brings the peer's tree up to date while the container runs; it returns the bytes sent. After one that failed, or whose
	// acknowledgement was lost, it may be called again, over another channel to the same peer: how much of that has arrived is not
	// known, and what may be missing there has to be sent once more.
	Pass(ctx context.Context, ch Channel) (uint64, error)
	// Again tells that another Pass, shortly before the stop, makes the Delta smaller.
	Again() bool
	// Delta sends what has changed since, while the container stands still.
	Delta(ctx context.Context, ch Channel) (uint64, error)
}

// Host is the peer's machine.
type Host interface {
	// Look decides whether the container could be taken, as Reserve would, and makes and changes nothing.
	Look(ctx context.Context, hello *wire.Hello) (*wire.Offer, error)
	// Reserve decides whether the container can be taken, and takes its id. The offer says whether its memory may come in page
	// frames. Errors wrap wire's sentinels; that of a preflight is a *wire.RefusalError.
	Reserve(ctx context.Context, hello *wire.Hello) (Place, *wire.Offer, error)
	// Discard destroys what is left of a container whose move did not get as far as "running", when the process that
	// received it is gone.
	Discard(ctx context.Context, m journal.Move) error
	// Settle completes a container that is "running" when the process that received it is gone: its link, its state.
	Settle(ctx context.Context, m journal.Move) error
	// Adopt goes on with a container that runs here and lacks memory, when the process that received it is gone. Errors wrap
	// wire.ErrEnded when it runs no more, wire.ErrOwed when nobody can give it what it lacks, wire.ErrPaid when it lacks nothing.
	Adopt(ctx context.Context, m journal.Move) (Adopted, error)
}

// Adopted is a container that lacks memory.
type Adopted interface {
	Debt
	// Owed is what Owe of the Place said before the restore.
	Owed() Owed
	// Pages is that of the Place.
	Pages(frame []byte) error
	// Finish waits, once the debt is paid, until everything is in its place.
	Finish(ctx context.Context) error
}

// Place is where one container is being received.
type Place interface {
	// Images is the directory that its images go to: empty, private, in memory where possible.
	Images() string
	// Sync serves one pass or delta of tree index, and returns the bytes received.
	Sync(ctx context.Context, index int, ch Channel) (uint64, error)
	// Prepare does everything for the restore that needs no images. The findings are what could only be told by doing it.
	Prepare(ctx context.Context) ([]*wire.Finding, error)
	// Pages stores the pages of one frame; what is stored for a page later replaces what was before. It is called by several
	// goroutines, one for each lane, and must not keep the frame. An error that wraps wire.ErrNoSpace says that it is full.
	Pages(frame []byte) error
	// Stored is which pages were stored since Settle was last called: bits from the slot on, a
	// multiple of 64, in at most size bytes, a multiple of 8; none behind the last.
	Stored(slot uint64, size int) []byte
	// Settle begins a round: nothing is being stored.
	Settle()
	// Yield waits until another move of the container wants its place, or ctx ends: false. The source is away meanwhile.
	Yield(ctx context.Context) bool
	// Forget drops every page that was stored: the container's memory will be in the images after all.
	Forget() error
	// Owe says, before Restore, which pages come when the container runs already. Pages takes them.
	Owe(owed Owed) (Debt, error)
	// Restore restores from Images, and from the pages if there are any, up to the gate. On an error nothing of it is left.
	Restore(ctx context.Context, stdio []byte) (Gate, error)
	// Discard undoes all of it, Restore included.
	Discard(ctx context.Context) error
}

// Debt is what a container that is being restored, or runs, lacks of its memory. It is of use until the Place's Discard, or
// until Run of Receive returns.
type Debt interface {
	// Wanted returns slots whose pages a task waits for, at least one.
	Wanted(ctx context.Context) ([]uint64, error)
	// Missing is how many pages have not come.
	Missing() uint64
	// Stored is which have: bits from the slot on, in at most size bytes; none behind the last.
	Stored(slot uint64, size int) []byte
	// Paid is closed when every page has come that is needed, or none can be any more: Err tells.
	Paid() <-chan struct{}
	Err() error
}

// Gate is a restored container whose processes are stopped and whose network is cut off.
type Gate interface {
	// Open lets it run. running is called at the last moment before its first instruction: when running fails, or CRIU
	// fails before, everything is killed and the error returned. When Open returns nil the container runs.
	Open(ctx context.Context, running func() error) error
	// Wrote is how long the container's state took to be written in Open.
	Wrote() time.Duration
	// Lacks is what the container does without, since Open could not do it.
	Lacks() []*wire.Finding
}
