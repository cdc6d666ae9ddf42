package main

import (
	"math"
	"time"
)

// answers are what a client heard, in their order.
type answers []answer

// silences are the longest time without an answer since the window's begin, and the longest one after that, in ms. The
// latter ends with the window, or a moment after it: the client goes on for as long.
func (all answers) silences(w window) map[string]float64 {
	longest, end := int64(0), 0
	for i := 1; i < len(all); i++ {
		if silence := all[i][0] - all[i-1][0]; all[i][0] >= w.from.UnixNano() && silence > longest {
			longest, end = silence, i
		}
	}
	next := int64(0)
	for i := end + 1; i < len(all); i++ {
		next = max(next, all[i][0]-all[i-1][0])
	}
	return map[string]float64{gap: float64(longest) / 1e6, later: float64(next) / 1e6}
}

// firstAfter is the first answer after a moment, in ms since it.
func (all answers) firstAfter(moment time.Time) (float64, bool) {
	for _, a := range all {
		if a[0] > moment.UnixNano() {
			return float64(a[0]-moment.UnixNano()) / 1e6, true
		}
	}
	return 0, false
}

// slowDown is the part of the work that was not done in the rounds, compared with the same container before the move: of
// pages to be written, or of answers to be given, whichever lost more. Rounds that are over at once tell nothing.
func (all answers) slowDown(moved time.Time, rounds window) (lost float64, ok bool) {
	const least = 100 * time.Millisecond
	if rounds.to.Sub(rounds.from) < least {
		return 0, false
	}
	answersBefore, pagesBefore := all.rates(window{moved.Add(-before), moved})
	answersIn, pagesIn := all.rates(rounds)
	for _, rate := range [][2]float64{{answersBefore, answersIn}, {pagesBefore, pagesIn}} {
		if rate[0] > 0 && !math.IsNaN(rate[1]) {
			lost = max(lost, 1-rate[1]/rate[0])
		}
	}
	return lost, true
}

// rates are answers and written pages a second in the window.
func (all answers) rates(w window) (heard, pages float64) {
	var within answers
	for _, a := range all {
		if a[0] >= w.from.UnixNano() && a[0] <= w.to.UnixNano() {
			within = append(within, a)
		}
	}
	seconds := w.to.Sub(w.from).Seconds()
	if len(within) == 0 {
		return 0, 0
	}
	return float64(len(within)) / seconds, float64(within[len(within)-1][1]-within[0][1]) / seconds
}
