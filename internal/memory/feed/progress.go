package feed

import "sync/atomic"

// Progress is how far the feeding is.
type Progress struct {
	Fed, Total uint64 // bytes; Total grows when a process forks before it is fed
	Faults     uint64 // pages that a thread waited for
	Restarts   int    // feeders that died and were replaced
	Feeders    int    // feeders that came to work so far: they know the layout, and have taken over
	Complete   bool   // CRIU has handed over every process
}

// Progress is the state of this moment. Not after Close.
func (s *Supervisor) Progress() Progress {
	h := s.journal.head
	return Progress{
		Fed:      atomic.LoadUint64(&h.fed) * pageSize,
		Total:    atomic.LoadUint64(&h.total) * pageSize,
		Faults:   atomic.LoadUint64(&h.faults),
		Restarts: int(s.restarts.Load()),
		Feeders:  int(atomic.LoadUint32(&h.generation)),
		Complete: atomic.LoadUint32(&h.complete) != 0,
	}
}
