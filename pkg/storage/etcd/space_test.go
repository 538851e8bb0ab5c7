package etcd

import (
	"errors"
	"testing"

	"github.com/berth-project/berth/pkg/storage"
)

// The last tenth of the quota is for writes that add nothing, and of that half for those of
// dying objects; what was written since etcd was asked counts, too.
func TestSpace(t *testing.T) {
	const quota, value = 1 << 20, 8_000 - writeOverhead // a write of the value takes 10,000
	for name, tc := range map[string]struct {
		reserve storage.Reserve
		inUse   int64
		writes  int // that pass; the next one does not
	}{
		"creating":              {storage.NoReserve, quota - quota/10 - 50_000, 5},
		"creating, full":        {storage.NoReserve, quota - quota/10, 0},
		"shrinking":             {storage.ForShrinking, quota - quota/10, 5},
		"shrinking, full":       {storage.ForShrinking, quota - quota/20, 0},
		"deleting":              {storage.ForDeletion, quota - quota/20, 2},
		"deleting, full":        {storage.ForDeletion, quota - quota/40, 0},
		"creating beyond quota": {storage.NoReserve, 2 * quota, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var s space
			if err := s.take(64<<20, tc.reserve); err != nil {
				t.Errorf("where the quota is not known: %v", err)
			}
			s.done(64 << 20)
			look := func() {
				s.look()
				s.seen(tc.inUse, tc.inUse, quota)
			}
			look()
			look()
			for i := range tc.writes {
				if err := s.take(value, tc.reserve); err != nil {
					t.Fatalf("write %d: %v", i, err)
				}
				switch i {
				case 0: // it goes on
					look()
					look()
					look()
				case 1:
					s.done(value)
					look() // the answer may be from before it
					s.look()
				}
			}
			var full *storage.NearlyFullError
			if err := s.take(value, tc.reserve); !errors.As(err, &full) || full.Quota != quota {
				t.Errorf("got %v, want a NearlyFullError", err)
			}
		})
	}
}

// The file never comes to the quota by a write, however much of it is free: there the alarm is.
func TestSpaceOfTheFile(t *testing.T) {
	for reserve := range kept {
		s := space{size: 1<<20 - 2*grows(0), inUse: 1 << 10, quota: 1 << 20}
		if err := s.take(0, reserve); err != nil {
			t.Error(err)
		}
		if err := s.take(0, reserve); err == nil {
			t.Errorf("the file may reach the quota for reserve %d", reserve)
		}
	}
}

// How full the database is comes from etcd, in this process or not.
func TestLookAtSpace(t *testing.T) {
	forEach(t, func(t *testing.T, s *Store, prefix string) {
		create(t, s, prefix+"a", "1")
		s.lookAtSpace(t.Context())
		if s.space.quota < s.space.inUse || s.space.inUse <= 0 || s.space.size < s.space.inUse {
			t.Errorf("size %d, in use %d, quota %d", s.space.size, s.space.inUse, s.space.quota)
		}
		s.space.inUse = s.space.quota
		var full *storage.NearlyFullError
		if _, err := s.Put(t.Context(), prefix+"b", nil, storage.PutOptions{}); !errors.As(err, &full) {
			t.Errorf("got %v, want a NearlyFullError", err)
		}
	})
}
