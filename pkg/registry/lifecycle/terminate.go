package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/storage"
)

const (
	// terminateRetry is how soon a namespace is looked at again that could not be emptied,
	// because finalizers hold objects in it or the storage failed.
	terminateRetry = time.Second
	// terminateRescan is how soon one looks for what another server on the same etcd has
	// left half-way.
	terminateRescan = time.Minute
)

// Run empties namespaces that are being deleted, and removes them when they are
// empty, until ctx ends. Those that an earlier process left half-way are taken up, too.
func (n *Namespaces) Run(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		case <-n.dying:
		}
		left, err := n.terminateAll(ctx)
		if err != nil && ctx.Err() == nil {
			n.cfg.Report(err)
		}
		if left || err != nil {
			retry.Reset(terminateRetry)
		} else {
			retry.Reset(terminateRescan)
		}
	}
}

// terminateAll takes every dying namespace as far as it goes, and reports whether any is left.
func (n *Namespaces) terminateAll(ctx context.Context) (left bool, err error) {
	var failures []error
	for page, err := range storage.Pages(ctx, n.cfg.Storage, n.cfg.Prefix, storage.ListOptions{}) {
		if err != nil {
			return false, errors.Join(append(failures, err)...)
		}
		gone, faults := n.terminatePage(ctx, page)
		left, failures = left || !gone, append(failures, faults...)
	}
	return left, errors.Join(failures...)
}

// terminatePage takes every dying namespace of a page as far as it goes, and reports whether
// all of them are gone.
func (n *Namespaces) terminatePage(ctx context.Context, page storage.ListResponse) (allGone bool, failures []error) {
	allGone = true
	for _, kv := range page.KVs {
		namespace, err := n.cfg.Decode(kv)
		if err != nil || namespace.DeletionTimestamp == nil {
			continue // nobody knows whether one that cannot be read is being deleted
		}
		gone, err := n.terminate(ctx, namespace, kv)
		if err != nil {
			failures = append(failures, fmt.Errorf("emptying namespace %s: %w", namespace.Name, err))
		}
		allGone = allGone && gone
	}
	return allGone, failures
}

// terminate deletes what is in the namespace. Once nothing is left, and no finalizer holds
// the namespace itself, it deletes the namespace as it was read; until then the namespace's
// conditions tell what holds it.
func (n *Namespaces) terminate(ctx context.Context, namespace *corev1.Namespace, kv *storage.KeyValue) (gone bool, err error) {
	empty, rest, err := n.cfg.Empty(ctx, namespace.Name)
	held := objectmeta.Hold(namespace.Finalizers) || slices.ContainsFunc(namespace.Spec.Finalizers, isForeign)
	if err != nil || !empty || held {
		if setConditions(&namespace.Status, rest.conditions(err), metav1.Now()) {
			namespace.ResourceVersion = strconv.FormatInt(kv.ModRevision, 10)
			err = errors.Join(err, n.cfg.UpdateStatus(ctx, namespace))
		}
		return false, err
	}
	response, err := n.cfg.Storage.Delete(ctx, kv.Key, storage.DeleteOptions{Expect: kv.ModRevision})
	return response.Succeeded, err
}

// isForeign reports whether it is another's finalizer of a namespace than Kubernetes' own,
// which holds the namespace until it is empty.
func isForeign(finalizer corev1.FinalizerName) bool { return finalizer != corev1.FinalizerKubernetes }
