// Package report collects what a load test measures, and reports it as text, JSON and HTML.
package report

import "time"

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
	Verbs       []Verb     `json:"verbs"`
	Tokens      []Token    `json:"tokens"`
	Errors      []Error    `json:"errors"`
	Watch       *Watch     `json:"watch,omitempty"`
	Capacity    *Capacity  `json:"capacity,omitempty"`
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
	RatePerSecond      float64 `json:"rate_per_second"`
	StartRatePerSecond float64 `json:"start_rate_per_second"`
	RampSeconds        float64 `json:"ramp_seconds"`
	DurationSeconds    float64 `json:"duration_seconds"`
	Mix                string  `json:"mix"`
	Objects            int     `json:"objects"`
	Addresses          int     `json:"addresses"`
	Tokens             int     `json:"tokens"`
	HonorRetryAfter    bool    `json:"honor_retry_after"`
	Connections        int     `json:"connections"`
	MaxWorkers         int     `json:"max_workers"`
	HTTP2              bool    `json:"http2"`
	TimeoutSeconds     float64 `json:"timeout_seconds"`
	Watchers           int     `json:"watchers"`
	WatchGzip          bool    `json:"watch_gzip"`
	Namespace          string  `json:"namespace"`
	Seed               uint64  `json:"seed"`
	MaxErrorShare      float64 `json:"max_error_share"`
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

// Token is what the requests of one token came to. Codes counts answers by status code, and
// missing ones under NoAnswer.
type Token struct {
	Token    string            `json:"token"`
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
