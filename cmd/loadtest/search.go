package main

import "math"

// searchPrecision is how close the highest rate that held and the lowest one that did not
// must get: measured latencies are not repeatable beyond that.
const searchPrecision = 0.05

// search looks for the highest rate that holds: it doubles the rate until one does not hold,
// and then halves the distance between the two. Rates are requests per second.
type search struct {
	rate   float64 // to try next
	limit  float64 // not to be exceeded
	held   float64 // the highest that held; 0: none so far
	failed float64 // the lowest that did not hold; 0: none so far
}

func newSearch(lowest, highest float64) *search {
	return &search{rate: lowest, limit: highest}
}

// tried records the outcome at s.rate and chooses the next rate. It returns false when the
// search is over; the result is then s.held.
func (s *search) tried(holds bool) (more bool) {
	if holds {
		s.held = s.rate
	} else {
		s.failed = s.rate
	}
	switch {
	case s.held == 0 || s.held >= s.limit:
		return false
	case s.failed == 0:
		s.rate = min(2*s.rate, s.limit)
		return true
	}
	s.rate = readable((s.held + s.failed) / 2)
	return s.failed-s.held > searchPrecision*s.held && s.rate > s.held && s.rate < s.failed
}

// readable rounds a rate to three significant digits.
func readable(rate float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(rate))-2)
	return math.Round(rate/unit) * unit
}
