package etcd

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/berth-project/berth/pkg/storage"
)

// benchmarkEach measures calls of 16 goroutines per core against a Store on each server,
// which is in the process and part of what is measured.
func benchmarkEach(b *testing.B, call func(s *Store, i int64) error) {
	var i atomic.Int64
	for name, client := range clients {
		s, err := New(client, Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := call(s, i.Add(1)); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	run, value := prefixes.Add(1), make([]byte, 700)
	benchmarkEach(b, func(s *Store, i int64) error {
		_, err := s.Put(b.Context(), fmt.Sprintf("/registry/bench%d/%d", run, i), value, storage.PutOptions{})
		return err
	})
}

func BenchmarkRevision(b *testing.B) {
	benchmarkEach(b, func(s *Store, _ int64) error {
		_, err := s.Revision(b.Context())
		return err
	})
}
