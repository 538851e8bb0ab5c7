package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/yamljson"
)

// A stored value that cannot be read, whoever wrote it, takes nothing else down: get, update
// and patch answer StorageReadError, create reports that the name is taken, lists and watches
// go on without it, and it can be deleted by key and revision.

const (
	// ignoreOption deletes what cannot be read.
	ignoreOption = "ignoreStoreReadErrorWithClusterBreakingPotential"
	// maxCauseBytes bounds what an error tells of a value that cannot be read.
	maxCauseBytes = 256
	// maxNesting is how deep an object may be nested. Go's JSON decoders give up at 10,000,
	// and lists and events nest an object deeper.
	maxNesting = 1000
)

// stored is what the store holds under a key: an object, or a value that cannot be read. The
// zero value is neither: the key does not exist.
type stored struct {
	object *object.Object
	broken *brokenValue
}

// brokenValue is a value that cannot be read.
type brokenValue struct {
	object.Identity
	err *apierrors.StatusError // StorageReadError
}

func (v stored) exists() bool { return v.object != nil || v.broken != nil }

// err is the StorageReadError of a value that cannot be read.
func (v stored) err() error {
	if v.broken != nil {
		return v.broken.err
	}
	return nil
}

// decode returns a typed copy of an object, or StorageReadError.
func (v stored) decode() (APIObject, error) {
	if v.broken != nil {
		return nil, v.broken.err
	}
	obj, err := v.object.Decode()
	if err != nil {
		return nil, err
	}
	return obj.(APIObject), nil
}

// at is where a key that exists stands.
func (v stored) at() object.Identity {
	if v.broken != nil {
		return v.broken.Identity
	}
	return v.object.Identity
}

// size is the memory that it takes, in bytes.
func (v stored) size() int {
	if v.object != nil {
		return v.object.Size()
	}
	const overhead = 1000
	return overhead
}

// last returns it as a change of the revision left it. It is not broken.
func (v stored) last(revision int64) stored { return stored{object: v.object.At(revision)} }

// readValue reads what a key holds.
func (s *Store) readValue(kv *storage.KeyValue) stored {
	at := s.resource.identity(kv)
	if at.Name == "" || strings.Contains(at.Name, "/") || s.resource.API.Namespaced && at.Namespace == "" {
		return s.unreadable(at, errors.New("no object has such a key"), "Delete it in etcd.")
	}
	o, err := object.Read(s.owner.objects, at, kv.Value)
	if err == nil {
		err = checkNesting(o.JSON())
	}
	if err != nil {
		return s.unreadable(at, err, "Send DELETE with "+ignoreOption+"=true to delete it.")
	}
	return stored{object: o}
}

// received makes what the cache keeps of a key.
func (s *Store) received(kv *storage.KeyValue) stored {
	v := s.readValue(kv)
	if v.broken != nil {
		s.broken.note(v.broken)
	}
	return v
}

// cachedOrRead is readValue, or what the cache keeps of the key if that is the same version.
func (s *Store) cachedOrRead(kv *storage.KeyValue) stored {
	if v := s.cached(kv); v.exists() {
		return v
	}
	return s.readValue(kv)
}

// cached is what the cache keeps of the key, if that is the same version, and nothing if not.
func (s *Store) cached(kv *storage.KeyValue) stored {
	if entry, _, err := s.cache.Get(kv.Key); err == nil && entry != nil && entry.Revision == kv.ModRevision {
		return entry.Value
	}
	return stored{}
}

// unreadable is a value that cannot be read for that cause.
func (s *Store) unreadable(at object.Identity, cause error, advice string) stored {
	why := strings.ToValidUTF8(cause.Error(), "?")
	if len(why) > maxCauseBytes {
		why = strings.ToValidUTF8(why[:maxCauseBytes], "") + "…"
	}
	key := strings.ToValidUTF8(at.Key, "?")
	return stored{broken: &brokenValue{at, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Message: fmt.Sprintf("the value that etcd holds under %s cannot be read: %s. %s", key, why, advice),
		Details: &metav1.StatusDetails{
			Group: s.resource.API.Group, Kind: s.resource.API.Name, Name: strings.ToValidUTF8(at.Name, "?"),
			Causes: []metav1.StatusCause{{Type: metav1.CauseTypeUnexpectedServerResponse, Message: why, Field: key}},
		},
	}}}}
}

// checkNesting refuses JSON that clients could not read.
func checkNesting(data []byte) error {
	if yamljson.IsDeeper(data, maxNesting) {
		return fmt.Errorf("it is nested more than %d deep", maxNesting)
	}
	return nil
}

// checkReadable refuses to store what could not be read again.
func (s *Store) checkReadable(o *object.Object) error {
	path, err := "metadata", checkNesting(o.JSON())
	if err == nil {
		path, err = o.CheckReadable()
	}
	if err == nil {
		return nil
	}
	return s.resource.invalid(o.Name, field.ErrorList{field.Invalid(field.NewPath(path), field.OmitValueType{}, "it could not be read again: "+err.Error())})
}

// unreadableKeys are the keys that a list leaves out.
type unreadableKeys struct {
	count int
	first []string // maxNamedKeys at most
}

// maxNamedKeys bounds the keys that a list warns of by name.
const maxNamedKeys = 10

func (u *unreadableKeys) add(key string) {
	if u.count++; len(u.first) < maxNamedKeys {
		u.first = append(u.first, key)
	}
}

func (u *unreadableKeys) warnings() []string {
	var warnings []string
	for _, key := range u.first {
		warnings = append(warnings, key+" is left out: its value in etcd cannot be read")
	}
	if more := u.count - len(u.first); more > 0 {
		warnings = append(warnings, fmt.Sprintf("%d more objects are left out: their values in etcd cannot be read", more))
	}
	return warnings
}

// ignoresReadErrors reports whether a deletion is for what cannot be read.
func ignoresReadErrors(opts *metav1.DeleteOptions) bool {
	return ptr.Deref(opts.IgnoreStoreReadErrorWithClusterBreakingPotential, false)
}

// deleteUnreadable deletes a value that cannot be read, as it was found. It ignores
// finalizers, which cannot be read either, and leaves the objects in a namespace. As in
// kube-apiserver, the option is refused for an object that can be read.
func (s *Store) deleteUnreadable(ctx context.Context, current stored, dryRun bool) (outcome, error) {
	if current.broken == nil {
		return noop, s.resource.invalid(current.at().Name, field.ErrorList{
			field.Invalid(field.NewPath(ignoreOption), true, "is only for objects that cannot be read, and this one can: try again without it"),
		})
	}
	response, err := s.remove(ctx, current.at(), nil, dryRun)
	if err != nil || response.Succeeded {
		return done, apierr.FromStorage(err)
	}
	return conflict, nil
}

// brokenValues report each version of a value that cannot be read once, however often it is
// read from etcd's history.
type brokenValues struct {
	report func(error)
	errors prometheus.Counter

	mu   sync.Mutex
	seen map[string]int64 // the revision by key; bounded by rememberedBroken
}

const rememberedBroken = 1000

func (b *brokenValues) note(v *brokenValue) {
	b.mu.Lock()
	known := b.seen[v.Key] == v.Revision
	if b.seen == nil || len(b.seen) >= rememberedBroken && !known {
		b.seen = map[string]int64{}
	}
	b.seen[v.Key] = v.Revision
	b.mu.Unlock()
	if known {
		return
	}
	b.errors.Inc()
	b.report(fmt.Errorf("revision %d: %w", v.Revision, v.err))
}

// countBroken counts the values of the cache that cannot be read; 0 before it is filled.
func (s *Store) countBroken() float64 {
	snapshot, err := s.cache.Snapshot()
	if err != nil {
		return 0
	}
	count := 0
	snapshot.Ascend(s.resource.prefix(""), "", func(entry *cacheEntry) bool {
		if entry.Value.broken != nil {
			count++
		}
		return true
	})
	return float64(count)
}
