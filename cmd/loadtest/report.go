package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// report is a run in numbers. Its JSON is described in docs/loadtest.md: a name says its
// unit, and a name that is there stays.
type report struct {
	Tool        string           `json:"tool"`
	Command     string           `json:"command"`
	Server      serverReport     `json:"server"`
	Started     time.Time        `json:"started"`
	Settings    settingsReport   `json:"settings"`
	Seconds     float64          `json:"duration_seconds"`
	Interrupted bool             `json:"interrupted"`
	Requests    requestsReport   `json:"requests"`
	Rates       ratesReport      `json:"rates"`
	ErrorShare  float64          `json:"error_share"`
	Generator   generatorReport  `json:"generator"`
	Response    timesReport      `json:"response_time"`
	Service     timesReport      `json:"service_time"`
	StartDelay  timesReport      `json:"start_delay"`
	Refused     *timesReport     `json:"rate_limited_response_time,omitempty"`
	Verbs       []verbReport     `json:"verbs"`
	Tokens      []tokenReport    `json:"tokens"`
	Errors      []errorReport    `json:"errors"`
	Watch       *watchReport     `json:"watch,omitempty"`
	Capacity    *capacityReport  `json:"capacity,omitempty"`
	Histogram   []bucketReport   `json:"histogram"`
	Intervals   []intervalReport `json:"intervals"`
}

type serverReport struct {
	URL     string `json:"url"`
	Version string `json:"version"`
}

type settingsReport struct {
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

type requestsReport struct {
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

type ratesReport struct {
	Asked     float64 `json:"asked_per_second"`
	Sent      float64 `json:"sent_per_second"`
	Succeeded float64 `json:"succeeded_per_second"`
}

// timesReport is a distribution of durations in milliseconds, all 0 where Count is.
type timesReport struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

func newTimesReport(t *times) timesReport {
	return timesReport{
		Count: t.count(), Mean: ms(t.mean()), P50: ms(t.at(50)), P90: ms(t.at(90)), P95: ms(t.at(95)),
		P99: ms(t.at(99)), P999: ms(t.at(99.9)), Max: ms(t.max()),
	}
}

type verbReport struct {
	Verb        string      `json:"verb"`
	Sent        uint64      `json:"sent"`
	Succeeded   uint64      `json:"succeeded"`
	RateLimited uint64      `json:"rate_limited"`
	Failed      uint64      `json:"failed"`
	Response    timesReport `json:"response_time"`
	Service     timesReport `json:"service_time"`
}

type tokenReport struct {
	Token    string            `json:"token"`
	Codes    map[string]uint64 `json:"codes"`
	HeldBack uint64            `json:"held_back"`
}

type errorReport struct {
	Kind    string `json:"kind"`
	Count   uint64 `json:"count"`
	Example string `json:"example"`
}

type watchReport struct {
	Watchers      int           `json:"watchers"`
	Events        uint64        `json:"events"`
	Expected      uint64        `json:"events_expected"`
	Unmatched     uint64        `json:"events_unmatched"`
	Reopened      uint64        `json:"reopened"`
	Expired       uint64        `json:"expired"`
	BytesReceived int64         `json:"bytes_received"`
	Delay         timesReport   `json:"delay"`
	Errors        []errorReport `json:"errors"`
}

type capacityReport struct {
	RatePerSecond   float64      `json:"rate_per_second"`
	P99LimitMS      float64      `json:"p99_limit_ms"`
	MaxFailureShare float64      `json:"max_failure_share"`
	MaxRate         float64      `json:"max_rate_per_second"`
	Steps           []stepReport `json:"steps"`
}

type stepReport struct {
	RatePerSecond float64 `json:"rate_per_second"`
	Holds         bool    `json:"holds"`
	Fault         string  `json:"fault"`
	ByGenerator   bool    `json:"generator_fell_behind"`
	Due           uint64  `json:"due"`
	Succeeded     uint64  `json:"succeeded"`
	RateLimited   uint64  `json:"rate_limited"`
	Failed        uint64  `json:"failed"`
	Unsent        uint64  `json:"unsent"`
	P50MS         float64 `json:"p50_ms"`
	P99MS         float64 `json:"p99_ms"`
}

func newStepReport(m *measurement, fault string) stepReport {
	s := m.stats
	return stepReport{
		RatePerSecond: m.schedule.rate, Holds: fault == "", Fault: fault, Due: m.due,
		Succeeded: s.counts[succeeded], RateLimited: s.counts[rateLimited], Failed: s.counts[failed],
		Unsent: m.unsent(), P50MS: ms(s.response.at(50)), P99MS: ms(s.response.at(99)),
	}
}

// bucketReport counts the times above From and up to To.
type bucketReport struct {
	From     float64 `json:"from_ms"`
	To       float64 `json:"to_ms"`
	Response int64   `json:"response_time"`
	Service  int64   `json:"service_time"`
}

// intervalReport is a stretch of the run. Times are of the requests that were due in it,
// counts of the answers that came in it. A time is null where there is none.
type intervalReport struct {
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

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func msText(ms float64) string { return timeText(time.Duration(ms * float64(time.Millisecond))) }

func writeJSON(w io.Writer, rep *report) error {
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// verdict is nil for a run that shows what was asked for, a *missedError for one that does
// not, and another error for one that shows nothing since no request got an answer.
func (rep *report) verdict() error {
	if rep.Requests.Sent > 0 && rep.answers() == 0 {
		return fmt.Errorf("no request got an answer: %s: %s", rep.Errors[0].Kind, rep.Errors[0].Example)
	}
	if rep.Capacity != nil {
		if rep.Capacity.RatePerSecond == 0 {
			return &missedError{"not even the lowest rate held: " + rep.Capacity.Steps[0].String()}
		}
		return nil
	}
	if limit := rep.Settings.MaxErrorShare; rep.ErrorShare > limit {
		return &missedError{fmt.Sprintf("%s of the requests failed, more than --max-error-share=%v: %s",
			shareText(rep.ErrorShare), limit, rep.Errors[0].Kind)}
	}
	return nil
}

// answers is how many requests had an answer with a status code.
func (rep *report) answers() (n uint64) {
	for _, token := range rep.Tokens {
		for code, count := range token.Codes {
			if code != statusName(0) {
				n += count
			}
		}
	}
	return n
}

// histogramBuckets is how many buckets a factor of 10 is divided into.
const histogramBuckets = 10

// newHistogram divides two distributions into the same buckets, which are equally wide on a
// logarithmic scale and have no gap between the first and the last one.
func newHistogram(response, service *times) []bucketReport {
	first, last := math.MaxInt, math.MinInt
	count := func(t *times) map[int]int64 {
		counts := map[int]int64{}
		for _, bar := range t.hdr.Distribution() {
			if bar.Count > 0 {
				i := int(math.Ceil(histogramBuckets * math.Log10(float64(bar.To)/1000)))
				counts[i] += bar.Count
				first, last = min(first, i), max(last, i)
			}
		}
		return counts
	}
	ofResponse, ofService := count(response), count(service)
	edge := func(i int) float64 {
		text := strconv.FormatFloat(math.Pow(10, float64(i)/histogramBuckets), 'g', 4, 64)
		value, _ := strconv.ParseFloat(text, 64) // it was made in the line before
		return value
	}
	buckets := []bucketReport{}
	for i := first; i <= last; i++ {
		buckets = append(buckets, bucketReport{From: edge(i - 1), To: edge(i), Response: ofResponse[i], Service: ofService[i]})
	}
	return buckets
}
