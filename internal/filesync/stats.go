package filesync

import (
	"fmt"
	"log/slog"
	"time"
)

// Stats tells what one Pass, Delta or Serve did.
type Stats struct {
	Full     bool   // the whole tree was compared, not only what the change log names
	Reason   string // why it was full; empty when it was not
	Log      string // what tells the changes: "fanotify", "overlay" or "none"
	Entries  int64  // names looked at
	Files    int64  // files whose content was sent
	Reread   int64  // files whose content was read
	Removed  int64  // names removed at the peer
	Bytes    int64  // of content sent
	Unstable int64  // files that changed while being read; the next pass sends them again
	Dropped  int64  // SELinux labels that the peer's kernel would not take
	Elapsed  time.Duration
}

// LogValue shortens the numbers to what is not zero.
func (s Stats) LogValue() slog.Value {
	kind := "incremental"
	if s.Full {
		kind = "full: " + s.Reason
	}
	return slog.StringValue(fmt.Sprintf("%s, log %s, %d names, %d files read, %d sent (%d bytes), %d removed, %d unstable, %s",
		kind, s.Log, s.Entries, s.Reread, s.Files, s.Bytes, s.Removed, s.Unstable, s.Elapsed.Round(time.Millisecond)))
}
