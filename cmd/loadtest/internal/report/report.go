// Package report collects what a load test measures, and reports it as text, JSON and HTML.
package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

// Report is a run in numbers. docs/loadtest.md describes its JSON: names include the unit,
// and once published they stay.
type Report struct {
	Tool        string     `json:"tool"`
	Command     string     `json:"command"`
	Server      Server     `json:"server"`
	Started     time.Time  `json:"started"`
	Settings    Settings   `json:"settings"`
	Seconds     float64    `json:"duration_seconds"`
	Interrupted bool       `json:"interrupted"`
	Requests    Requests   `json:"requests"`
	Rates       Rates      `json:"rates"`
	ErrorShare  float64    `json:"error_share"`
	Generator   Generator  `json:"generator"`
	Response    Times      `json:"response_time"`
	Service     Times      `json:"service_time"`
	StartDelay  Times      `json:"start_delay"`
	Refused     *Times     `json:"rate_limited_response_time,omitempty"`
	Process     *Process   `json:"process,omitempty"`
	Checks      []Check    `json:"fail_if,omitempty"`
	Verbs       []Verb     `json:"verbs"`
	Phases      []Phase    `json:"phases"`
	Tokens      []Token    `json:"tokens"`
	Errors      []Error    `json:"errors"`
	Watch       *Watch     `json:"watch,omitempty"`
	Capacity    *Capacity  `json:"capacity,omitempty"`
	Versus      *Versus    `json:"versus,omitempty"`
	Histogram   []Bucket   `json:"histogram"`
	Intervals   []Interval `json:"intervals"`
}

// Server is where the load went. Version is empty if the server does not tell.
type Server struct {
	URL     string `json:"url"`
	Version string `json:"version"`
}

// Settings is what was asked for. Tokens is 0 if requests carried none.
type Settings struct {
	Schedule        []string `json:"schedule"` // as --phase takes it
	DurationSeconds float64  `json:"duration_seconds"`
	Rounds          int      `json:"rounds"` // of two servers; 0: there is only one
	Mix             string   `json:"mix"`
	Objects         int      `json:"objects"`
	Addresses       int      `json:"addresses"`
	Tokens          int      `json:"tokens"`
	HonorRetryAfter bool     `json:"honor_retry_after"`
	Connections     int      `json:"connections"`
	MaxWorkers      int      `json:"max_workers"`
	HTTP2           bool     `json:"http2"`
	Protobuf        bool     `json:"protobuf"`
	TimeoutSeconds  float64  `json:"timeout_seconds"`
	Watchers        int      `json:"watchers"`
	WatchGzip       bool     `json:"watch_gzip"`
	Namespace       string   `json:"namespace"`
	Namespaces      int      `json:"namespaces"`
	Seed            uint64   `json:"seed"`
}

// Requests counts requests and the bytes of their bodies. Due is the sum of Sent, Unsent and
// HeldBack; Sent is the sum of Succeeded, RateLimited and Failed.
type Requests struct {
	Due           uint64 `json:"due"`
	Sent          uint64 `json:"sent"`
	Unsent        uint64 `json:"unsent"`
	HeldBack      uint64 `json:"held_back"`
	Succeeded     uint64 `json:"succeeded"`
	RateLimited   uint64 `json:"rate_limited"`
	Failed        uint64 `json:"failed"`
	SwappedDelete uint64 `json:"deletes_sent_as_creates"`
	BytesSent     int64  `json:"bytes_sent"`
	BytesReceived int64  `json:"bytes_received"`
}

// Rates are requests per second over the whole duration.
type Rates struct {
	Asked     float64 `json:"asked_per_second"`
	Sent      float64 `json:"sent_per_second"`
	Succeeded float64 `json:"succeeded_per_second"`
}

// Verb is what the requests of one verb came to.
type Verb struct {
	Verb        string `json:"verb"`
	Sent        uint64 `json:"sent"`
	Succeeded   uint64 `json:"succeeded"`
	RateLimited uint64 `json:"rate_limited"`
	Failed      uint64 `json:"failed"`
	Response    Times  `json:"response_time"`
	Service     Times  `json:"service_time"`
}

// Phase is what the requests of one phase of the schedule came to. Delay is that of the
// events of the writes that were sent in it.
type Phase struct {
	Start       float64     `json:"start_seconds"`
	Seconds     float64     `json:"duration_seconds"`
	From        float64     `json:"from_per_second"`
	To          float64     `json:"to_per_second"`
	Sent        uint64      `json:"sent"`
	Succeeded   uint64      `json:"succeeded"`
	RateLimited uint64      `json:"rate_limited"`
	Failed      uint64      `json:"failed"`
	HeldBack    uint64      `json:"held_back"`
	Response    Times       `json:"response_time"`
	Delay       Times       `json:"watch_delay"`
	Verbs       []PhaseVerb `json:"verbs"`
}

// PhaseVerb is the response time of a verb in a phase.
type PhaseVerb struct {
	Verb     string `json:"verb"`
	Response Times  `json:"response_time"`
}

// subject returns the times of a verb, of watches or of all requests.
func (p *Phase) subject(name string) Times {
	switch name {
	case "":
		return p.Response
	case WatchSubject:
		return p.Delay
	}
	for _, v := range p.Verbs {
		if v.Verb == name {
			return v.Response
		}
	}
	return Times{}
}

// Rate returns the phase's rate in words.
func (p *Phase) Rate() string {
	if p.From == p.To {
		return text.Rate(p.To) + "/s"
	}
	return text.Rate(p.From) + " to " + text.Rate(p.To) + "/s"
}

// End returns when the phase ends, in seconds.
func (p *Phase) End() float64 { return p.Start + p.Seconds }

// maxPlan is how many different phases Plan names.
const maxPlan = 4

// Plan returns how long requests were to be sent and at which rate, in words.
func (rep *Report) Plan() string {
	var parts []string
	for i := 0; i < len(rep.Phases); {
		p, times := &rep.Phases[i], 0
		for ; i < len(rep.Phases) && rep.Phases[i].alike(p); i++ {
			times++
		}
		if len(parts) == maxPlan {
			parts = append(parts, "and so on")
			break
		}
		part := text.Seconds(p.Seconds) + " at " + p.Rate()
		if times > 1 {
			part = fmt.Sprintf("%d times ", times) + part
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func (p *Phase) alike(other *Phase) bool {
	return p.From == other.From && p.To == other.To && p.Seconds == other.Seconds
}

// Process is what the server's process used while the load was running.
type Process struct {
	PID                  int     `json:"pid"`
	CPUSeconds           float64 `json:"cpu_seconds"`
	CPUSecondsPerRequest float64 `json:"cpu_seconds_per_request"`
	PeakRSSBytes         int64   `json:"peak_rss_bytes"`
}

// PerRequest returns the CPU time of a request in words.
func (p *Process) PerRequest() string {
	if p == nil {
		return "–"
	}
	return fmt.Sprintf("%.0f µs", p.CPUSecondsPerRequest*1e6)
}

// Peak returns the resident memory in words.
func (p *Process) Peak() string {
	if p == nil {
		return "–"
	}
	return text.Bytes(p.PeakRSSBytes)
}

// Token is what the requests of one token came to. Codes counts answers by status code, and
// missing ones under NoAnswer. Source is where the token was given.
type Token struct {
	Token    string            `json:"token"`
	Source   string            `json:"source,omitempty"`
	Codes    map[string]uint64 `json:"codes"`
	HeldBack uint64            `json:"held_back"`
}

// Watch is what the watchers saw.
type Watch struct {
	Watchers      int     `json:"watchers"`
	Events        uint64  `json:"events"`
	Expected      uint64  `json:"events_expected"`
	Unmatched     uint64  `json:"events_unmatched"`
	Reopened      uint64  `json:"reopened"`
	Expired       uint64  `json:"expired"`
	BytesReceived int64   `json:"bytes_received"`
	Delay         Times   `json:"delay"`
	Errors        []Error `json:"errors"`
}

// Interval is one stretch of the run. Its times are those of the requests that were due in
// it, its counts those of the answers that came in it. A time is null if there is none.
type Interval struct {
	Start       float64  `json:"start_seconds"`
	Seconds     float64  `json:"duration_seconds"`
	Asked       float64  `json:"asked_per_second"`
	Succeeded   uint64   `json:"succeeded"`
	RateLimited uint64   `json:"rate_limited"`
	Failed      uint64   `json:"failed"`
	HeldBack    uint64   `json:"held_back"`
	P50         *float64 `json:"response_p50_ms"`
	P90         *float64 `json:"response_p90_ms"`
	P99         *float64 `json:"response_p99_ms"`
	ServiceP99  *float64 `json:"service_p99_ms"`
	Events      uint64   `json:"watch_events"`
	WatchP50    *float64 `json:"watch_delay_p50_ms"`
	WatchP99    *float64 `json:"watch_delay_p99_ms"`
}
