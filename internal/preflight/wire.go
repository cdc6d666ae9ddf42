package preflight

import (
	"github.com/livemigrate/migrate/internal/wire"
)

// ToWire is the findings as they cross hosts.
func (f Findings) ToWire() []*wire.Finding {
	var all []*wire.Finding
	for _, finding := range f {
		all = append(all, &wire.Finding{
			Severity: string(finding.Severity), Code: finding.Code, Text: finding.Text,
			Pid: uint32(finding.Pid), Process: finding.Process, Cure: finding.Cure,
		})
	}
	return all
}

// Refusal is the error of a preflight that found blockers, with everything that it found; nil without one. It wraps the
// sentinel that a peer's refusal always had.
func (f Findings) Refusal() error {
	blockers := f.Of(Blocker)
	if len(blockers) == 0 {
		return nil
	}
	cause := wire.ErrIncompatible
	switch Code(blockers[0].Code) {
	case IDTaken:
		cause = wire.ErrExists
	case DiskSpace, MemorySpace, ImageSpace:
		cause = wire.ErrNoSpace
	case PeerBusy, TooLarge:
		cause = wire.ErrFull
	}
	return &wire.RefusalError{Findings: f.ToWire(), Cause: cause}
}

// filesBudget is how many bytes of a Hello may be names of files.
const filesBudget = 256 << 10

// ToWire is the needs as they cross hosts. Files beyond a Hello's room are left out: CRIU will compare them.
func (n *Needs) ToWire() *wire.Needs {
	w := &wire.Needs{
		Processes: uint32(n.Processes), Threads: uint32(n.Threads), Memory: n.Memory, Copied: n.Copied,
		PipeSize: uint32(n.PipeSize), Labels: n.Labels, Addresses: n.Addresses,
	}
	room := filesBudget
	for _, file := range n.Files {
		room -= len(file.Path) + len(file.Inside) + len(file.BuildID)
		if room < 0 || len(w.Files) == wire.MaxFiles {
			break
		}
		w.Files = append(w.Files, &wire.SharedFile{
			Path: file.Path, Inside: file.Inside, Size: uint64(file.Size), BuildId: file.BuildID, Writable: file.Writable,
		})
	}
	return w
}

// NeedsFromWire is the other host's container. A Hello without needs has none.
func NeedsFromWire(w *wire.Needs) *Needs {
	n := &Needs{
		Processes: int(w.GetProcesses()), Threads: int(w.GetThreads()), Memory: w.GetMemory(), Copied: w.GetCopied(),
		PipeSize: int(w.GetPipeSize()), Labels: w.GetLabels(), Addresses: w.GetAddresses(),
	}
	for _, file := range w.GetFiles() {
		n.Files = append(n.Files, File{
			Path: file.GetPath(), Inside: file.GetInside(), Size: int64(file.GetSize()), BuildID: file.GetBuildId(), Writable: file.GetWritable(),
		})
	}
	return n
}
