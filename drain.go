package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/livemigrate/migrate/internal/keeper"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
)

// DrainOptions says how to move several containers. nil means the defaults.
type DrainOptions struct {
	// Push is how each is moved. BandwidthLimit is that of all together, in equal parts for those that are under way at once; Event
	// gets the events of all, one at a time.
	Push        PushOptions
	All         bool // every running container of the state root, instead of ids
	AtOnce      int  // so many move at a time; default 2
	FailFast    bool // after one that was not moved, none is begun any more
	SkipRefused bool // those that the preflight refuses stay; otherwise none moves
}

// DefaultAtOnce is how many containers a Drain moves at a time: one is prepared while another one stops. More help where a
// link, not a processor, is what a move waits for.
const DefaultAtOnce = 2

// Drained is how a Drain ended.
type Drained struct {
	Moved     int       `json:"moved"`
	Kept      int       `json:"kept"`
	Refused   int       `json:"refused"`
	Unknown   int       `json:"unknown"`
	Skipped   int       `json:"skipped"`
	CalledOff int       `json:"called_off,omitempty"` // of those skipped: because ctx had ended
	TotalMS   float64   `json:"total_ms"`
	Results   []*Result `json:"results"`        // one for each container, in the order in which they were to move
	Left      []Left    `json:"left,omitempty"` // of All: those that do not run, and stay
}

// Left is a container that was not to be moved.
type Left struct {
	ID     string `json:"id"`
	Status string `json:"status"` // created, paused or stopped
}

// Drain moves containers to the peer, several at a time: those of ids in the order given, so that who drains says what matters
// first; with All the largest first, so that the last to end is a small one. Stops come one after the other.
//
// Before the first moves, both hosts are asked about each: whether it could move, and whether the peer has memory for it
// besides those before it that move. With a blocker among them, or where one could not be asked about, none is moved, unless
// SkipRefused is set. An id given twice, one that no running container has, or a bad option is an error, and then nothing was begun.
//
// When ctx ends, those that were not begun are not begun any more; each of the others ends as its Push does.
func Drain(ctx context.Context, ids []string, peer string, o *DrainOptions) (*Drained, error) {
	d := &drain{began: time.Now(), peer: peer}
	if o != nil {
		d.options = *o
	}
	if d.options.AtOnce == 0 {
		d.options.AtOnce = DefaultAtOnce
	}
	if err := d.plan(ids); err != nil {
		return nil, err
	}
	d.share()
	stop := context.AfterFunc(ctx, func() { d.callOff(calledOff) })
	defer stop()
	d.judge(func(c *planned) { d.check(ctx, c) })
	d.each(func(c *planned) { d.move(ctx, c) })
	return d.sum(), nil
}

// drain is one at work.
type drain struct {
	options    DrainOptions
	host       Host
	peer       string
	began      time.Time
	containers []*planned
	left       []Left

	telling sync.Mutex // one event at a time
	mu      sync.Mutex
	off     string // why no more are begun; empty: they are
}

// planned is a container that is to move.
type planned struct {
	id      string
	memory  uint64  // bytes
	besides uint64  // bytes of memory of those before it
	result  *Result // once it is known
	off     bool    // it was not begun, because the drain was called off
}

// plan finds out which containers are to move, and in which order.
func (d *drain) plan(ids []string) (err error) {
	if d.host, err = d.options.Push.Host.fill(); err != nil {
		return err
	}
	d.options.Push.Host = d.host
	switch {
	case d.options.AtOnce < 1:
		return fmt.Errorf("%d containers at once: want at least 1", d.options.AtOnce)
	case d.options.All && len(ids) > 0:
		return errors.New("all containers are to move, and some by name: want one or the other")
	case !d.options.All && len(ids) == 0:
		return errors.New("no container is named")
	}
	order, err := d.options.Push.order(d.host, "", d.peer)
	if err != nil {
		return err
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			err = errors.Join(err, fmt.Errorf("%s is named twice", id))
		}
	}
	if err != nil {
		return err
	}
	candidates, err := order.Candidates(ids, d.host.Log)
	if err != nil {
		return err
	}
	if d.options.All {
		slices.SortStableFunc(candidates, func(a, b keeper.Candidate) int { return cmp.Compare(b.Memory, a.Memory) })
	}
	var memory uint64
	for _, c := range candidates {
		switch {
		case c.Err == nil:
			d.containers = append(d.containers, &planned{id: c.ID, memory: c.Memory, besides: memory})
			memory += c.Memory
		case d.options.All:
			d.left = append(d.left, Left{ID: c.ID, Status: c.Status})
		default:
			err = errors.Join(err, c.Err)
		}
	}
	return err
}

// share gives each move its part of the bandwidth, and everybody one sink of events.
func (d *drain) share() {
	if together := int64(min(d.options.AtOnce, len(d.containers))); together > 0 && d.options.Push.BandwidthLimit > 0 {
		d.options.Push.BandwidthLimit = max(d.options.Push.BandwidthLimit/together, 1)
	}
	if sink := d.options.Push.Event; sink != nil {
		d.options.Push.Event = func(e Event) {
			d.telling.Lock()
			defer d.telling.Unlock()
			sink(e)
		}
	}
}

// judge finds out which can move. A check gives a container that can't its result.
func (d *drain) judge(check func(*planned)) {
	d.each(check)
	cant := func(c *planned) bool { return c.result != nil }
	if !d.options.SkipRefused {
		if slices.ContainsFunc(d.containers, cant) {
			d.callOff("others can't be moved")
		}
	} else {
		var memory uint64
		for _, c := range d.containers {
			if c.result != nil && c.besides > memory { // some before it stay, and leave it their room
				c.besides, c.result = memory, nil
				check(c)
			}
			if c.result == nil {
				memory += c.memory
			}
		}
	}
	for _, c := range d.containers {
		if c.result != nil {
			d.options.Push.conclude(c.result)
		}
	}
}

// each does something for every container without a result, some at once, in their order.
func (d *drain) each(do func(*planned)) {
	var work sync.WaitGroup
	free := make(chan struct{}, d.options.AtOnce)
	for _, c := range d.containers {
		if c.result != nil {
			continue
		}
		free <- struct{}{}
		work.Go(func() {
			do(c)
			<-free
		})
	}
	work.Wait()
}

// check gives a container that could not move its result.
func (d *drain) check(ctx context.Context, c *planned) {
	if d.calledOff() != "" {
		return
	}
	order, err := d.options.Push.order(d.host, c.id, d.peer)
	if err != nil {
		c.end(Kept, err.Error(), nil)
		return
	}
	order.Besides = c.besides
	found, err := keeper.Check(ctx, order, d.host.Log)
	switch {
	case ctx.Err() != nil: // it was not found out; move says so
	case found != nil && found.Findings.Blocked():
		blockers := found.Findings.Of(Blocker)
		var lines []string
		for _, f := range blockers {
			lines = append(lines, f.String())
		}
		c.end(Refused, strings.Join(lines, "; "), blockers)
	case err != nil:
		c.end(Kept, line.Of(err), nil)
	}
}

// move moves one, or says why it was not begun.
func (d *drain) move(ctx context.Context, c *planned) {
	if why := d.calledOff(); why != "" {
		c.end(Skipped, "not begun: "+why, nil)
		c.off = why == calledOff
		d.options.Push.conclude(c.result)
		return
	}
	result, err := Push(ctx, c.id, d.peer, &d.options.Push)
	if err != nil {
		c.end(Kept, line.Of(err), nil)
		d.options.Push.conclude(c.result)
	} else {
		c.result = result
	}
	if d.options.FailFast && c.result.Outcome != Moved {
		d.callOff(c.id + " could not be moved")
	}
}

// end is the end of a container that no Push has told of.
func (c *planned) end(outcome Outcome, text string, findings []Finding) {
	c.result = &Result{
		Outcome: outcome, Container: c.id, Error: text, Findings: findings, Rounds: []Round{}, Phases: map[Phase]float64{},
	}
	c.result.Source, _ = os.Hostname()
}

// calledOff is why nothing is begun after ctx has ended.
const calledOff = "called off"

// callOff lets no more begin.
func (d *drain) callOff(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = cmp.Or(d.off, why)
}

func (d *drain) calledOff() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

func (d *drain) sum() *Drained {
	s := &Drained{TotalMS: report.Milliseconds(time.Since(d.began)), Left: d.left, Results: []*Result{}}
	count := map[Outcome]*int{Moved: &s.Moved, Kept: &s.Kept, Refused: &s.Refused, Unknown: &s.Unknown, Skipped: &s.Skipped}
	for _, c := range d.containers {
		*count[c.result.Outcome]++
		if c.off {
			s.CalledOff++
		}
		s.Results = append(s.Results, c.result)
	}
	return s
}

// ExitCode is what the program ends with: 0 when all were moved; 3 when the outcome of any is unknown; else 1 when any
// failed, or was not begun because the drain was called off; else 4.
func (s *Drained) ExitCode() int {
	switch {
	case s.Unknown > 0:
		return Unknown.ExitCode()
	case s.Kept > 0 || s.CalledOff > 0:
		return Kept.ExitCode()
	case s.Refused > 0:
		return Refused.ExitCode()
	case s.Skipped > 0:
		return Skipped.ExitCode()
	default:
		return Moved.ExitCode()
	}
}
