package registry

import (
	"context"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/storage"
)

// namespaceKey is where the namespace itself is stored.
func namespaceKey(name string) string { return namespacePrefix + name }

const namespacePrefix = "/registry/" + Namespaces + "/"

// rememberedNamespaces bounds the memory of lifecycle: at some 150 bytes an entry, 1.5 MB.
const rememberedNamespaces = 10_000

// lifecycle knows which namespaces take new objects. What it remembers may be stale, and
// that is harmless: every create carries the namespace's revision as a guard of its
// transaction, so that an object can never appear in a namespace that is deleted or terminating.
type lifecycle struct {
	storage    storage.Interface
	namespaces *Store // set before anything is served
	// dying has an element when a namespace may have been marked as deleted.
	dying chan struct{}

	mu    sync.Mutex
	known map[string]namespaceState // bounded by rememberedNamespaces
}

type namespaceState struct {
	revision    int64
	terminating bool
}

func newLifecycle(store storage.Interface) *lifecycle {
	return &lifecycle{storage: store, dying: make(chan struct{}, 1), known: map[string]namespaceState{}}
}

// guard returns the condition under which an object may be created in the namespace. It
// returns NotFound where there is no such namespace, Forbidden where it is being deleted,
// StorageReadError where it cannot be read.
func (l *lifecycle) guard(ctx context.Context, namespace string, resource schema.GroupResource, name string) (*storage.Guard, error) {
	l.mu.Lock()
	state, ok := l.known[namespace]
	l.mu.Unlock()
	if !ok || state.terminating {
		got, err := l.storage.Get(ctx, namespaceKey(namespace), storage.GetOptions{})
		if err != nil {
			return nil, apiError(err)
		}
		if state, err = l.observe(namespace, got.KV); err != nil {
			return nil, err
		}
	}
	if state.terminating {
		return nil, terminatingError(namespace, resource, name)
	}
	return &storage.Guard{Key: namespaceKey(namespace), ModRevision: state.revision}, nil
}

// observe takes note of the namespace as it is stored; nil: it does not exist.
func (l *lifecycle) observe(namespace string, kv *storage.KeyValue) (namespaceState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kv == nil {
		delete(l.known, namespace)
		return namespaceState{}, apierrors.NewNotFound(schema.GroupResource{Resource: Namespaces}, namespace)
	}
	stored, err := l.decode(kv)
	if err != nil {
		delete(l.known, namespace)
		return namespaceState{}, err
	}
	if len(l.known) >= rememberedNamespaces {
		clear(l.known)
	}
	state := namespaceState{
		revision:    kv.ModRevision,
		terminating: stored.DeletionTimestamp != nil || stored.Status.Phase == corev1.NamespaceTerminating,
	}
	l.known[strings.Clone(namespace)] = state // it may be a part of a large body
	return state, nil
}

func terminatingError(namespace string, resource schema.GroupResource, name string) error {
	err := apierrors.NewForbidden(resource, name,
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", namespace))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", namespace),
		Field:   "metadata.namespace",
	})
	return err
}

// wake has the terminator look for namespaces to empty.
func (l *lifecycle) wake() {
	select {
	case l.dying <- struct{}{}:
	default: // it will look anyway
	}
}

// decode returns a namespace as it is stored, or StorageReadError.
func (l *lifecycle) decode(kv *storage.KeyValue) (*corev1.Namespace, error) {
	found := l.namespaces.shared(kv)
	if err := found.err(); err != nil {
		return nil, err
	}
	obj, err := found.object.Decode()
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Namespace), nil
}
