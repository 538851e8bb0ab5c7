package etcd

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	// spaceInterval is how often WatchSpace asks how full the database is; each answer takes
	// a connection, except from an etcd in this process.
	spaceInterval, spaceIntervalInProcess = 5 * time.Second, time.Second / 2
	// spaceTimeout bounds each of its rounds.
	spaceTimeout = 2 * time.Second
	// writeOverhead is what a write takes in the database beside its value, in bytes, about.
	writeOverhead = 512
	// markHeadroom is the part of the largest value that is kept for the marks of a deletion,
	// in bytes: they take some 100 as JSON.
	markHeadroom = 4 << 10
)

// kept is the part of the quota that a write must leave, as its reciprocal: beyond the quota
// etcd writes nothing at all, and then neither finalizers nor namespaces could be removed.
// Those writes, too, wait for the compaction of what they replace.
var kept = map[storage.Reserve]int64{storage.NoReserve: 10, storage.ForShrinking: 20, storage.ForDeletion: 40}

// space is how full etcd's database is.
type space struct {
	mu    sync.Mutex
	size  int64 // bytes of the file
	inUse int64 // bytes in use of the member with the least room, as last seen
	quota int64 // of that member; 0: it is not known, and nothing is kept
	// writing is what is being written, in bytes. written is what was written since the last look
	// began, between that and the one before, and, until the last look has an answer, before those.
	writing int64
	written [3]int64
}

// grows returns by about how many bytes a write of a value makes the file grow at the worst: values
// from 100 B to 1.4 MB were measured to take up to 1.26 times what they and their overhead are, as
// pages are written anew together with their neighbours.
func grows(bytes int) int64 { return (int64(bytes) + writeOverhead) * 5 / 4 }

// take counts a write of a value of so many bytes until done is called with them, and returns
// NearlyFullError where it may not use the room that is left.
func (s *space) take(bytes int, reserve storage.Reserve) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := grows(bytes)
	written := s.writing + s.written[0] + s.written[1] + s.written[2]
	inUse, limit := s.inUse+written, s.quota-s.quota/kept[reserve]
	if s.quota > 0 && inUse+n > limit {
		return &storage.NearlyFullError{InUse: inUse, Limit: limit, Quota: s.quota}
	}
	// etcd's alarm goes by the file, free pages included.
	if size := s.size + written; s.quota > 0 && size+n >= s.quota {
		return &storage.NearlyFullError{InUse: size, Limit: s.quota, Quota: s.quota}
	}
	s.writing += n
	return nil
}

// done tells that a write is over, whatever came of it.
func (s *space) done(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := grows(bytes)
	s.writing -= n
	s.written[0] += n
}

// look tells that etcd is about to be asked.
func (s *space) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = [3]int64{0, s.written[0], s.written[1] + s.written[2]}
}

// seen takes note of an answer. It forgets the writes that were over when the look before this one
// began: etcd counts a write when it commits it to the file, up to 0.1 s after it has answered.
func (s *space) seen(size, inUse, quota int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size, s.inUse, s.quota = size, inUse, quota
	s.written[2] = 0
}

func (s *space) get(what *int64) func() float64 {
	return func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(*what)
	}
}

// collectors export it under the names of kube-apiserver and etcd.
func (s *space) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apiserver_storage_size_bytes", Help: "Size of the storage database file physically allocated in bytes.",
			ConstLabels: prometheus.Labels{"storage_cluster_id": "etcd-0"},
		}, s.get(&s.size)),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "etcd_mvcc_db_total_size_in_use_in_bytes", Help: "Bytes of the database in use, of the member with the least room.",
		}, s.get(&s.inUse)),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "etcd_server_quota_backend_bytes", Help: "Quota of the database in bytes; 0: etcd does not tell.",
		}, s.get(&s.quota)),
	}
}

// WatchSpace asks all members how full their databases are until ctx ends. Without an
// answer, or from an etcd before 3.6, which does not tell its quota, no room is kept.
func (s *Store) WatchSpace(ctx context.Context) {
	interval := spaceInterval
	if len(s.client.Endpoints()) == 0 {
		interval = spaceIntervalInProcess
	}
	ticks := time.Tick(interval)
	for {
		s.lookAtSpace(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
	}
}

func (s *Store) lookAtSpace(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, spaceTimeout)
	defer cancel()
	endpoints := s.client.Endpoints()
	if len(endpoints) == 0 {
		endpoints = []string{""} // an etcd in this process has none
	}
	s.space.look()
	answers := make([]*clientv3.StatusResponse, len(endpoints))
	var asking sync.WaitGroup
	for i, endpoint := range endpoints {
		asking.Go(func() {
			if answer, err := s.client.Status(ctx, endpoint); err == nil {
				answers[i] = answer
			}
		})
	}
	asking.Wait()
	var fullest *clientv3.StatusResponse
	for _, answer := range answers {
		if answer != nil && (fullest == nil || answer.DbSizeQuota-answer.DbSizeInUse < fullest.DbSizeQuota-fullest.DbSizeInUse) {
			fullest = answer
		}
	}
	if fullest != nil {
		s.space.seen(fullest.DbSize, fullest.DbSizeInUse, max(fullest.DbSizeQuota, 0))
	}
}
