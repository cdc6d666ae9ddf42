package report

import (
	"slices"
	"sync"
	"time"
)

// Recorder turns what a move tells it into events and, at the end, the result. It is safe for concurrent use.
type Recorder struct {
	sink func(Event)
	now  func() time.Time

	mu      sync.Mutex
	began   time.Time
	frozen  time.Time
	phase   Phase
	entered time.Time
	spent   map[Phase]time.Duration
	shown   time.Time
	full    bool // the last progress was at its end
	warned  []string
}

// NewRecorder starts the clock. sink gets every event, one at a time; nil drops them.
func NewRecorder(sink func(Event)) *Recorder {
	if sink == nil {
		sink = func(Event) {}
	}
	r := &Recorder{sink: sink, now: time.Now, spent: make(map[Phase]time.Duration)}
	r.began = r.now()
	return r
}

// Enter ends the phase that was and begins another one. Entering Freeze starts the downtime.
func (r *Recorder) Enter(p Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.leave(now)
	r.phase, r.entered = p, now
	if p == Freeze {
		r.frozen = now
	}
	r.sink(Event{Event: "phase", Phase: p, At: now})
}

func (r *Recorder) leave(now time.Time) {
	if r.phase != "" {
		r.spent[r.phase] += now.Sub(r.entered)
	}
}

// Leave ends the phase without beginning another: what follows is not part of the service's story.
func (r *Recorder) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave(r.now())
	r.phase = ""
}

// progressEvery keeps a fast transfer from drowning its own progress in events.
const progressEvery = 50 * time.Millisecond

// Progress reports bytes done of an estimated total within the current phase.
func (r *Recorder) Progress(bytes, total uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	full := bytes >= total
	if now.Sub(r.shown) < progressEvery && (!full || r.full) {
		return
	}
	r.shown, r.full = now, full
	r.sink(Event{Event: "progress", Phase: r.phase, Bytes: bytes, Total: total})
}

// Round reports a pass over memory that has ended. The one who calls keeps it for the result.
func (r *Recorder) Round(round Round) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = false
	r.sink(Event{Event: "round", Phase: r.phase, At: r.now(), Round: &round})
}

// Slow reports that the container keeps so many percent of the processor time that it took.
func (r *Recorder) Slow(percent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sink(Event{Event: "slow", Phase: r.phase, At: r.now(), CPU: percent})
}

// Warn reports something that the user should know and that does not end the move. What was said already, of an attempt
// before, is not said again.
func (r *Recorder) Warn(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.warned, text) {
		return
	}
	r.warned = append(r.warned, text)
	r.sink(Event{Event: "warning", Text: text})
}

// Finish stops the clock: it fills in the times, emits the result and returns it. A container that was never frozen, or
// thawed again, had as much downtime as passed until now.
func (r *Recorder) Finish(result Result) *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.leave(now)
	r.phase = ""
	if !r.frozen.IsZero() && result.DowntimeMS == 0 {
		result.DowntimeMS = Milliseconds(now.Sub(r.frozen))
	}
	result.TotalMS = Milliseconds(now.Sub(r.began))
	result.Phases = make(map[Phase]float64)
	for _, p := range Phases() {
		result.Phases[p] = Milliseconds(r.spent[p])
	}
	if spent, ok := r.spent[Follow]; ok {
		result.Phases[Follow] = Milliseconds(spent)
	}
	result.Warnings = r.warned
	if result.Rounds == nil {
		result.Rounds = []Round{}
	}
	r.sink(Event{Event: "result", Result: &result})
	return &result
}

// Spent is the time in a phase so far, without what it is in now.
func (r *Recorder) Spent(p Phase) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spent[p]
}

// Downtime is what has passed since the freeze.
func (r *Recorder) Downtime() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen.IsZero() {
		return 0
	}
	return Milliseconds(r.now().Sub(r.frozen))
}

// Milliseconds is a time as reports have it.
func Milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}
