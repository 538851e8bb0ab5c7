// Package lifecycle keeps what a namespace's life means for what is in it: nothing is created
// in a namespace that is deleted or terminating, and a terminating one is emptied and removed.
package lifecycle

import (
	"context"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/storage"
)

// rememberedNamespaces bounds the memory of Namespaces: at some 150 bytes an entry, 1.5 MB.
const rememberedNamespaces = 10_000

// Config is what Namespaces are made of. Every field is required.
type Config struct {
	Storage storage.Interface
	// Prefix is what precedes a namespace's name in its key.
	Prefix string
	// Decode returns a namespace as it is stored, or StorageReadError.
	Decode func(*storage.KeyValue) (*corev1.Namespace, error)
	// Empty deletes what is in the namespace, and reports whether nothing is left. rest, which is
	// never nil, is what finalizers hold.
	Empty func(ctx context.Context, namespace string) (empty bool, rest *Rest, err error)
	// UpdateStatus writes the status of a namespace, unless it has changed since it was read.
	UpdateStatus func(context.Context, *corev1.Namespace) error
	// Report is told of failures in the background, which are tried again.
	Report func(error)
}

// Namespaces knows which namespaces take new objects. What it remembers may be stale, and
// that is harmless: every create carries the namespace's revision as a guard of its
// transaction, so that an object can never appear in a namespace that is deleted or
// terminating.
type Namespaces struct {
	cfg Config
	// dying has an element when a namespace may have been marked as deleted.
	dying chan struct{}

	mu    sync.Mutex
	known map[string]namespaceState // bounded by rememberedNamespaces
}

type namespaceState struct {
	revision    int64
	terminating bool
}

// New returns Namespaces that remember none.
func New(cfg Config) *Namespaces {
	return &Namespaces{cfg: cfg, dying: make(chan struct{}, 1), known: map[string]namespaceState{}}
}

// Guard returns the condition under which an object may be created in the namespace. It
// returns NotFound where there is no such namespace, Forbidden where it is being deleted,
// StorageReadError where it cannot be read.
func (n *Namespaces) Guard(ctx context.Context, namespace string, resource schema.GroupResource, name string) (*storage.Guard, error) {
	n.mu.Lock()
	state, ok := n.known[namespace]
	n.mu.Unlock()
	if !ok || state.terminating {
		got, err := n.cfg.Storage.Get(ctx, n.cfg.Prefix+namespace, storage.GetOptions{})
		if err != nil {
			return nil, apierr.FromStorage(err)
		}
		if state, err = n.observe(namespace, got.KV); err != nil {
			return nil, err
		}
	}
	if state.terminating {
		return nil, terminatingError(namespace, resource, name)
	}
	return &storage.Guard{Key: n.cfg.Prefix + namespace, ModRevision: state.revision}, nil
}

// Refresh takes note of the namespace as it is stored; nil: it does not exist. The errors are
// those of Guard for a namespace that does not exist or cannot be read.
func (n *Namespaces) Refresh(namespace string, kv *storage.KeyValue) error {
	_, err := n.observe(namespace, kv)
	return err
}

// Forget makes the next Guard of the namespace look at what is stored.
func (n *Namespaces) Forget(namespace string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, namespace)
}

// observe takes note of the namespace as it is stored; nil: it does not exist.
func (n *Namespaces) observe(namespace string, kv *storage.KeyValue) (namespaceState, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if kv == nil {
		delete(n.known, namespace)
		return namespaceState{}, apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, namespace)
	}
	stored, err := n.cfg.Decode(kv)
	if err != nil {
		delete(n.known, namespace)
		return namespaceState{}, err
	}
	if len(n.known) >= rememberedNamespaces {
		clear(n.known)
	}
	state := namespaceState{
		revision:    kv.ModRevision,
		terminating: stored.DeletionTimestamp != nil || stored.Status.Phase == corev1.NamespaceTerminating,
	}
	n.known[strings.Clone(namespace)] = state // it may be a part of a large body
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

// Wake has Run look for namespaces to empty.
func (n *Namespaces) Wake() {
	select {
	case n.dying <- struct{}{}:
	default: // it will look anyway
	}
}
