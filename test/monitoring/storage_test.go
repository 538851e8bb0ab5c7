package monitoring

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// The labels that Prometheus adds to what it scrapes.
const (
	job      = "kube-apiserver"
	instance = "127.0.0.1:6443"
)

// memory is a Prometheus' storage. It is for one goroutine.
type memory map[uint64]*series

type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// sample is a value at a time, in milliseconds.
type sample struct {
	at    int64
	value float64
}

func (s sample) T() int64                      { return s.at }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.value }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

func (m memory) add(l labels.Labels, at time.Time, value float64) {
	s := m[l.Hash()]
	if s == nil {
		s = &series{labels: l}
		m[l.Hash()] = s
	}
	s.samples = append(s.samples, sample{at.UnixMilli(), value})
}

// scrape adds what the server's /metrics has, as of a time.
func (m memory) scrape(t *testing.T, s *server, at time.Time) {
	t.Helper()
	text := s.do(t, adminToken, 200, "GET", "/metrics", "", "")
	parser := textparse.NewPromParser([]byte(text), labels.NewSymbolTable(), false)
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var scraped labels.Labels
		_, _, value := parser.Series()
		parser.Labels(&scraped)
		m.add(labels.NewBuilder(scraped).Set("job", job).Set("instance", instance).Labels(), at, value)
	}
	m.add(labels.FromStrings("__name__", "up", "job", job, "instance", instance), at, 1)
}

// find returns the series that match, whatever their times.
func (m memory) find(matchers ...*labels.Matcher) []*series {
	var found []*series
	for _, s := range m {
		matches := true
		for _, matcher := range matchers {
			matches = matches && matcher.Matches(s.labels.Get(matcher.Name))
		}
		if matches {
			found = append(found, s)
		}
	}
	return found
}

// Querier implements storage.Queryable.
func (m memory) Querier(int64, int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		set := &seriesSet{}
		for _, s := range m.find(matchers...) {
			set.rest = append(set.rest, storage.NewListSeries(s.labels, s.samples))
		}
		return set
	}}, nil
}

// seriesSet implements storage.SeriesSet.
type seriesSet struct {
	rest []storage.Series
	at   storage.Series
}

func (s *seriesSet) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.at, s.rest = s.rest[0], s.rest[1:]
	return true
}
func (s *seriesSet) At() storage.Series                { return s.at }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// query evaluates a query as of a time.
func (m memory) query(t *testing.T, query string, at time.Time) promql.Vector {
	t.Helper()
	prepared, err := engine.NewInstantQuery(t.Context(), m, nil, query, at)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer prepared.Close()
	result := prepared.Exec(context.WithoutCancel(t.Context()))
	// What is only to be known is that upstream's counters are not all named …_total.
	if warnings, _ := result.Warnings.CountWarningsAndInfo(); result.Err != nil || warnings > 0 {
		t.Fatalf("%s: %v %v", query, result.Err, result.Warnings)
	}
	vector, err := result.Vector()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return vector
}
