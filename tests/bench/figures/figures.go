// Package figures sums up what was measured many times, for every bench alike.
package figures

import (
	"encoding/json"
	"os"
	"slices"
	"time"
)

// Summary of one figure's runs. Means are left out: one run that met a busy machine would move them.
type Summary struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
	Max    float64 `json:"max"`
}

// Summarise of no values is zero.
func Summarise(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Summary{Min: sorted[0], Median: sorted[n/2], P90: sorted[min(n*9/10, n-1)], Max: sorted[n-1]}
}

// MS is a duration as the reports have it, in milliseconds.
func MS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// WriteReport writes a report for programs.
func WriteReport(path string, report any) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
