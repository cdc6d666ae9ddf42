package journal

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

// What a record costs inside the freeze, on the disk that TMPDIR names.
func BenchmarkAppend(b *testing.B) {
	dir := b.TempDir()
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		m := newMove()
		j, err := Create(dir, m)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began := time.Now()
		if err := j.Append(CommitSent, ""); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		took = append(took, time.Since(began))
		if err := errors.Join(j.Close(), os.Remove(Path(dir, m.Name, m.Role))); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}
