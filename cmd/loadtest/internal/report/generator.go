package report

import (
	"fmt"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// Causes of requests that started late.
const (
	CauseGenerator   = "generator"
	CauseWorkers     = "workers"
	CauseConnections = "connections"
)

// keptUpShare is how many of the requests may start late, or be unsent at the end, while the
// generator still counts as keeping up.
const keptUpShare = 0.01

// Generator tells whether the requests were sent when they were due.
type Generator struct {
	KeptUp bool   `json:"kept_up"`
	Late   uint64 `json:"late_requests"`
	// Cause is what most of the late ones waited for, one of the Cause constants; "" if none
	// was late.
	Cause   string `json:"cause"`
	Message string `json:"message"`
}

func newGenerator(m *Measurement, settings Settings) Generator {
	late, unsent := m.Stats.late, m.unsent()
	g := Generator{Late: late.total()}
	share := float64(g.Late) / float64(max(m.Stats.counts.sent(), 1))
	g.KeptUp = share <= keptUpShare && float64(unsent) <= keptUpShare*float64(m.due())
	reason := ""
	switch {
	case g.Late == 0 && unsent == 0:
	case late.workers > 0 && late.workers >= max(late.connections, late.generator):
		g.Cause, reason = CauseWorkers, fmt.Sprintf("all %s workers (--max-workers) were waiting for answers", text.Count(settings.MaxWorkers))
	case late.connections > 0 && late.connections >= late.generator:
		g.Cause, reason = CauseConnections, fmt.Sprintf("they waited for one of the %s connections (--connections)", text.Count(settings.Connections))
	default:
		g.Cause, reason = CauseGenerator, "this machine had no time for the generator"
	}
	missed := fmt.Sprintf("%s of the requests started more than %d ms late", text.Percent(share), lateAfter.Milliseconds())
	if g.KeptUp {
		g.Message = "The generator kept up: " + missed + "."
		return g
	}
	if unsent > 0 {
		missed += fmt.Sprintf(" and %s were never sent", text.Count(unsent))
	}
	g.Message = "The generator could not keep up: " + missed + ", mostly because " + reason + ". Response times include this wait, service times do not."
	return g
}
