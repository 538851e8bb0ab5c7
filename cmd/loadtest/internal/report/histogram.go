package report

import (
	"math"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// longest is what a longer time counts as. The unit of the histograms is 1 µs.
	longest = time.Hour
	// wholeDigits and intervalDigits are significant digits: histograms of 190 KB and 24 KB.
	wholeDigits, intervalDigits = 3, 2
)

// histogram counts durations, with a relative error of at most 0.1 % or 1 %.
type histogram struct{ hdr *hdrhistogram.Histogram }

func newHistogram(digits int) *histogram {
	return &histogram{hdrhistogram.New(1, longest.Microseconds(), digits)}
}

func (h *histogram) add(d time.Duration) {
	// It fails only for what is out of range, and this is not.
	_ = h.hdr.RecordValue(min(max(d, time.Microsecond), longest).Microseconds())
}

func (h *histogram) count() int64 { return h.hdr.TotalCount() }

// at returns the duration that percent of all do not exceed, 0 if there are none.
func (h *histogram) at(percent float64) time.Duration {
	return time.Duration(h.hdr.ValueAtQuantile(percent)) * time.Microsecond
}

func (h *histogram) max() time.Duration { return time.Duration(h.hdr.Max()) * time.Microsecond }

func (h *histogram) mean() time.Duration {
	return time.Duration(h.hdr.Mean() * float64(time.Microsecond))
}

// Times is a distribution of durations in milliseconds, all 0 if Count is.
type Times struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

// newTimes returns the distribution of a histogram; nil has none.
func newTimes(h *histogram) Times {
	if h == nil {
		return Times{}
	}
	return Times{
		Count: h.count(), Mean: ms(h.mean()), P50: ms(h.at(50)), P90: ms(h.at(90)), P95: ms(h.at(95)),
		P99: ms(h.at(99)), P999: ms(h.at(99.9)), Max: ms(h.max()),
	}
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// percentile is in milliseconds, nil without a duration.
func percentile(h *histogram, percent float64) *float64 {
	if h == nil || h.count() == 0 {
		return nil
	}
	value := ms(h.at(percent))
	return &value
}

// Bucket counts the times above From and up to To, in milliseconds.
type Bucket struct {
	From     float64 `json:"from_ms"`
	To       float64 `json:"to_ms"`
	Response int64   `json:"response_time"`
	Service  int64   `json:"service_time"`
}

// bucketsPerDecade is how many buckets a factor of 10 is divided into.
const bucketsPerDecade = 10

// newBuckets divides two distributions into the same buckets, which are equally wide on a
// logarithmic scale and have no gap between the first and the last one.
func newBuckets(response, service *histogram) []Bucket {
	first, last := math.MaxInt, math.MinInt
	count := func(h *histogram) map[int]int64 {
		counts := map[int]int64{}
		for _, bar := range h.hdr.Distribution() {
			if bar.Count > 0 {
				i := int(math.Ceil(bucketsPerDecade * math.Log10(float64(bar.To)/1000)))
				counts[i] += bar.Count
				first, last = min(first, i), max(last, i)
			}
		}
		return counts
	}
	ofResponse, ofService := count(response), count(service)
	edge := func(i int) float64 { // to four significant digits
		text := strconv.FormatFloat(math.Pow(10, float64(i)/bucketsPerDecade), 'g', 4, 64)
		value, _ := strconv.ParseFloat(text, 64) // it was formatted in the line before
		return value
	}
	buckets := []Bucket{}
	for i := first; i <= last; i++ {
		buckets = append(buckets, Bucket{From: edge(i - 1), To: edge(i), Response: ofResponse[i], Service: ofService[i]})
	}
	return buckets
}
