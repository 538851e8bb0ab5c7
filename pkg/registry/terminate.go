package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	// terminatePage is how many objects of a dying namespace are read at once.
	terminatePage = 500
	// terminateRetry is how soon a namespace is looked at again that could not be emptied,
	// because finalizers hold objects in it or the storage failed.
	terminateRetry = time.Second
	// terminateRescan is how soon one looks for what another server on the same etcd has
	// left half-way.
	terminateRescan = time.Minute
)

// runTerminator empties namespaces that are being deleted, and removes them when they are
// empty, until ctx ends. Those that an earlier process left half-way are taken up, too.
func (r *Registry) runTerminator(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		case <-r.lifecycle.dying:
		}
		left, err := r.terminateAll(ctx)
		if err != nil && ctx.Err() == nil {
			r.report(err)
		}
		if left || err != nil {
			retry.Reset(terminateRetry)
		} else {
			retry.Reset(terminateRescan)
		}
	}
}

// terminateAll takes every dying namespace as far as it goes, and reports whether any is left.
func (r *Registry) terminateAll(ctx context.Context) (left bool, err error) {
	list, err := r.storage.List(ctx, namespacePrefix, storage.ListOptions{})
	if err != nil {
		return false, err
	}
	var failures []error
	for _, kv := range list.KVs {
		namespace, err := r.lifecycle.decode(kv)
		if err != nil || namespace.DeletionTimestamp == nil {
			continue // nobody knows whether one that cannot be read is being deleted
		}
		gone, err := r.terminate(ctx, namespace, kv)
		if err != nil {
			failures = append(failures, fmt.Errorf("emptying namespace %s: %w", namespace.Name, err))
		}
		left = left || !gone
	}
	return left, errors.Join(failures...)
}

// terminate deletes what is in the namespace. Once nothing is left, and no finalizer holds
// the namespace itself, it deletes the namespace as it was read.
func (r *Registry) terminate(ctx context.Context, namespace *corev1.Namespace, kv *storage.KeyValue) (gone bool, err error) {
	for _, store := range r.stores {
		if !store.API.Namespaced {
			continue
		}
		if err := store.deleteAll(ctx, namespace.Name); err != nil {
			return false, err
		}
		rest, err := r.storage.List(ctx, store.prefix(namespace.Name), storage.ListOptions{Limit: 1})
		if err != nil || len(rest.KVs) > 0 {
			return false, err
		}
	}
	if len(namespace.Finalizers) > 0 || slices.ContainsFunc(namespace.Spec.Finalizers, isForeign) {
		return false, nil
	}
	response, err := r.storage.Delete(ctx, kv.Key, storage.DeleteOptions{Expect: kv.ModRevision})
	return response.Succeeded, err
}

// isForeign reports whether it is another's finalizer of a namespace than Kubernetes' own,
// which holds the namespace until it is empty.
func isForeign(finalizer corev1.FinalizerName) bool { return finalizer != corev1.FinalizerKubernetes }

// deleteAll deletes every object of the namespace, or marks those that finalizers hold. One
// that cannot be read goes at once.
func (s *Store) deleteAll(ctx context.Context, namespace string) error {
	from := ""
	for {
		page, err := s.storage.List(ctx, s.prefix(namespace), storage.ListOptions{Limit: terminatePage, From: from})
		if err != nil {
			return err
		}
		for _, kv := range page.KVs {
			name := kv.Key[len(s.prefix(namespace)):]
			_, _, err := s.Delete(ctx, namespace, name, &metav1.DeleteOptions{})
			if apierrors.IsStoreReadError(err) {
				ignore := true
				_, _, err = s.Delete(ctx, namespace, name, &metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: &ignore})
			}
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			from = kv.Key + "\x00"
		}
		if !page.More {
			return nil
		}
	}
}
