package registry

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry/objectjson"
	"github.com/berth-project/berth/pkg/storage"
)

// A stored value that cannot be read, whoever wrote it, takes nothing else down. It is a
// broken object: get, update and patch answer StorageReadError, create says that the name is
// taken, lists and watches go on without it, and it can be deleted by key and revision.

const (
	// ignoreOption deletes what cannot be read.
	ignoreOption = "ignoreStoreReadErrorWithClusterBreakingPotential"
	// maxCauseBytes bounds what an error tells of a value that cannot be read.
	maxCauseBytes = 256
	// maxFieldsDepth is how deep a set of owned fields may be nested. Go's JSON decoders give
	// up at 10,000, and lists and events nest an object deeper.
	maxFieldsDepth = 1000
)

// unreadable is the StorageReadError for the value of a key.
func (r *Resource) unreadable(key string, cause error) *apierrors.StatusError {
	namespace, name := r.place(key)
	advice := "Send DELETE with " + ignoreOption + "=true to delete it."
	if strings.Contains(name, "/") || r.API.Namespaced && namespace == "" {
		advice = "No object has such a key: delete it in etcd."
	}
	why := strings.ToValidUTF8(cause.Error(), "?")
	if len(why) > maxCauseBytes {
		why = strings.ToValidUTF8(why[:maxCauseBytes], "") + "…"
	}
	key = strings.ToValidUTF8(key, "?")
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Message: fmt.Sprintf("the value that etcd holds under %s cannot be read: %s. %s", key, why, advice),
		Details: &metav1.StatusDetails{
			Group: r.API.Group, Kind: r.API.Name, Name: strings.ToValidUTF8(name, "?"),
			Causes: []metav1.StatusCause{{Type: metav1.CauseTypeUnexpectedServerResponse, Message: why, Field: key}},
		},
	}}
}

// checkPlace refuses an object under a key that is not its own.
func (r *Resource) checkPlace(key string, metadata *metav1.ObjectMeta) error {
	namespace, name := r.place(key)
	switch {
	case metadata.Name != name || metadata.Namespace != namespace:
		return fmt.Errorf("it is the object %q in namespace %q", metadata.Name, metadata.Namespace)
	case name == "" || strings.Contains(name, "/") || r.API.Namespaced && namespace == "":
		return errors.New("no object has such a key")
	}
	return nil
}

// checkDepth refuses sets of owned fields that clients could not read.
func checkDepth(metadata *metav1.ObjectMeta) error {
	for i := range metadata.ManagedFields {
		if fields := metadata.ManagedFields[i].FieldsV1; fields != nil && objectjson.Depth(fields.GetRawString()) > maxFieldsDepth {
			return fmt.Errorf("metadata.managedFields[%d].fieldsV1 is nested more than %d deep", i, maxFieldsDepth)
		}
	}
	return nil
}

// checkWritten refuses to store what could not be read again. A resource with a writer of
// its own has nothing but strings and numbers beside the metadata, which never fail.
func (s *Store) checkWritten(name string, value []byte) error {
	var err error
	if s.EncodeJSON != nil {
		var metadata *metav1.ObjectMeta
		if metadata, err = decodeMetadata(metadataOf(value)); err == nil {
			err = checkDepth(metadata)
		}
	} else {
		_, err = s.decodeFinished(value)
	}
	if err == nil {
		return nil
	}
	return s.invalid(name, field.ErrorList{field.Invalid(metadataPath, field.OmitValueType{}, "it could not be read again: "+err.Error())})
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
	ignore := opts.IgnoreStoreReadErrorWithClusterBreakingPotential
	return ignore != nil && *ignore
}

// deleteUnreadable deletes a broken object as it was read. It asks no finalizer, since nobody
// knows whether there are any, and of a namespace it leaves what is in it. An object that
// can be read is deleted without the option, as kube-apiserver has it.
func (s *Store) deleteUnreadable(ctx context.Context, stored *object, dryRun bool) (runtime.Object, verdict, error) {
	_, name := s.place(stored.key)
	if stored.broken == nil {
		return nil, unwritten, s.invalid(name, field.ErrorList{
			field.Invalid(field.NewPath(ignoreOption), true, "is only for objects that cannot be read, and this one can: try again without it"),
		})
	}
	response, err := s.remove(ctx, stored, dryRun)
	if err != nil || response.Succeeded {
		return s.deletedStatus(name, ""), decided, apiError(err)
	}
	return nil, overtaken, nil
}

// received makes what the cache keeps of a key.
func (s *Store) received(kv *storage.KeyValue) *object {
	if s.written.has(kv.Key, kv.Value) {
		data, err := s.finishWritten(kv.Value, kv.ModRevision)
		return finishedObject(s.Resource, kv, data, err)
	}
	o := newObject(s.Resource, kv)
	if o.broken != nil {
		s.broken.note(o)
	}
	return o
}

// objectOf is what the cache keeps of a key, or newObject where it has another version.
func (s *Store) objectOf(kv *storage.KeyValue) *object {
	if entry, _, err := s.cache.Get(kv.Key); err == nil && entry != nil && entry.Revision == kv.ModRevision {
		return entry.Value
	}
	return newObject(s.Resource, kv)
}

// writtenValues tell the values that this process wrote of late from others: they come back
// from etcd and need no check then. They are known by a hash, of which a later one may have
// taken the place; the value is checked then.
type writtenValues struct {
	seed   maphash.Seed
	hashes [1024]atomic.Uint64
}

func (w *writtenValues) hash(key string, value []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	_, _ = h.WriteString(key) // never fails
	_ = h.WriteByte(0)        // never fails
	_, _ = h.Write(value)     // never fails
	return h.Sum64()
}

func (w *writtenValues) add(key string, value []byte) {
	hash := w.hash(key, value)
	w.hashes[hash%uint64(len(w.hashes))].Store(hash)
}

func (w *writtenValues) has(key string, value []byte) bool {
	hash := w.hash(key, value)
	return w.hashes[hash%uint64(len(w.hashes))].Load() == hash
}

// brokenValues report each version of a value that cannot be read once, however often it is
// read from etcd's history.
type brokenValues struct {
	report func(error)
	errors prometheus.Counter // nil: there are no metrics

	mu   sync.Mutex
	seen map[string]int64 // the revision by key; bounded by rememberedBroken
}

const rememberedBroken = 1000

func (b *brokenValues) note(o *object) {
	b.mu.Lock()
	known := b.seen[o.key] == o.revision
	if b.seen == nil || len(b.seen) >= rememberedBroken && !known {
		b.seen = map[string]int64{}
	}
	b.seen[o.key] = o.revision
	b.mu.Unlock()
	if known {
		return
	}
	if b.errors != nil {
		b.errors.Inc()
	}
	b.report(fmt.Errorf("revision %d: %w", o.revision, o.broken))
}

// registerMetrics exports how many stored values could not be read, under kube-apiserver's
// name, and how many there are now.
func (r *Registry) registerMetrics(registerer prometheus.Registerer) error {
	decodeErrors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_storage_decode_errors_total",
		Help: "Stored values that could not be read, each version once, by group and resource.",
	}, []string{"group", "resource"})
	if err := registerer.Register(decodeErrors); err != nil {
		return err
	}
	for _, store := range r.stores {
		store.broken.errors = decodeErrors.WithLabelValues(store.API.Group, store.API.Name)
		gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "apiserver_storage_unreadable_objects",
			Help:        "Objects whose stored values cannot be read, by group and resource.",
			ConstLabels: prometheus.Labels{"group": store.API.Group, "resource": store.API.Name},
		}, store.countBroken)
		if err := registerer.Register(gauge); err != nil {
			return err
		}
	}
	return nil
}

// countBroken counts the broken objects of the cache; 0 before it is filled.
func (s *Store) countBroken() float64 {
	snapshot, err := s.cache.Snapshot()
	if err != nil {
		return 0
	}
	count := 0
	snapshot.Ascend(s.prefix(""), "", func(entry *cacheEntry) bool {
		if entry.Value.broken != nil {
			count++
		}
		return true
	})
	return float64(count)
}
