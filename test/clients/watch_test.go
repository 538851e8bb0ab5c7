package clients

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// The tests of this file follow test/e2e/apimachinery/watch.go.

// currentVersion is the resourceVersion of the collection as it is now.
func currentVersion(t *testing.T, client typedcorev1.EndpointsInterface) string {
	t.Helper()
	list, err := client.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.ResourceVersion
}

// expectNothingMore checks that no event of the watch is still on its way, by one that
// comes after all of them: the marker is created, and must be what comes next. The watch
// must select it.
func expectNothingMore(t *testing.T, client typedcorev1.EndpointsInterface, marker string, keysAndValues []string, watches ...watch.Interface) {
	t.Helper()
	created := mustCreate(t, client, newEndpoints(marker, keysAndValues...))
	for _, w := range watches {
		expectEvent(t, w, watch.Added, marker, created.ResourceVersion)
	}
}

// “Watchers should observe add, update, and delete watch notifications on configmaps”.
func TestWatchSelectors(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	version := currentVersion(t, endpoints)
	open := func(selector string) watch.Interface {
		return openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: version, LabelSelector: selector})
	}
	a, b, both := open("watch=a"), open("watch=b"), open("watch in (a,b)")

	created := mustCreate(t, endpoints, newEndpoints("object-a", "watch", "a"))
	for _, w := range []watch.Interface{a, both} {
		expectEvent(t, w, watch.Added, "object-a", created.ResourceVersion)
	}
	for step := range 2 {
		created.Annotations = map[string]string{"step": strconv.Itoa(step)}
		created = mustUpdate(t, endpoints, created)
		for _, w := range []watch.Interface{a, both} {
			if got := expectEvent(t, w, watch.Modified, "object-a", created.ResourceVersion); got.Annotations["step"] != strconv.Itoa(step) {
				t.Errorf("event of step %d has annotations %v", step, got.Annotations)
			}
		}
	}
	mustDelete(t, endpoints, "object-a")
	for _, w := range []watch.Interface{a, both} {
		last := expectEvent(t, w, watch.Deleted, "object-a", "")
		if after, before := versionOf(t, last.ResourceVersion), versionOf(t, created.ResourceVersion); after <= before {
			t.Errorf("a deletion at version %d comes after a change at %d", after, before)
		}
	}
	created = mustCreate(t, endpoints, newEndpoints("object-b", "watch", "b"))
	mustDelete(t, endpoints, "object-b")
	for _, w := range []watch.Interface{b, both} {
		expectEvent(t, w, watch.Added, "object-b", created.ResourceVersion)
		expectEvent(t, w, watch.Deleted, "object-b", "")
	}
	expectNothingMore(t, endpoints, "last-a", []string{"watch", "a"}, a, both)
	expectNothingMore(t, endpoints, "last-b", []string{"watch", "b"}, b, both)
}

func versionOf(t *testing.T, resourceVersion string) int64 {
	t.Helper()
	version, err := strconv.ParseInt(resourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// “Watchers should be able to start watching from a specific resource version”.
func TestWatchFromVersion(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustCreate(t, endpoints, newEndpoints("object"))
	first := patchAnnotation(t, endpoints, "object", "1")
	second := patchAnnotation(t, endpoints, "object", "2")
	mustDelete(t, endpoints, "object")

	w := openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: first})
	expectEvent(t, w, watch.Modified, "object", second)
	expectEvent(t, w, watch.Deleted, "object", "")
	expectNothingMore(t, endpoints, "last", nil, w)
}

// patchAnnotation changes the object by a merge patch and returns its new version.
func patchAnnotation(t *testing.T, client typedcorev1.EndpointsInterface, name, value string) string {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"step":%q}}}`, value)
	patched, err := client.Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return patched.ResourceVersion
}

// “Watchers should be able to restart watching from the last resource version observed by
// the previous watch”.
func TestWatchRestart(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	w := openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: currentVersion(t, endpoints)})
	mustCreate(t, endpoints, newEndpoints("object"))
	first := patchAnnotation(t, endpoints, "object", "1")
	expectEvent(t, w, watch.Added, "object", "")
	last := expectEvent(t, w, watch.Modified, "object", first)
	w.Stop()

	second := patchAnnotation(t, endpoints, "object", "2")
	mustDelete(t, endpoints, "object")
	w = openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: last.ResourceVersion})
	expectEvent(t, w, watch.Modified, "object", second)
	expectEvent(t, w, watch.Deleted, "object", "")
}

// “Watchers should observe an object deletion if it stops meeting the requirements of the
// selector”.
func TestWatchLeavesSelector(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	w := openWatch(t, endpoints, metav1.ListOptions{
		ResourceVersion: currentVersion(t, endpoints), LabelSelector: "watch=yes",
	})
	object := mustCreate(t, endpoints, newEndpoints("object", "watch", "yes"))
	expectEvent(t, w, watch.Added, "object", object.ResourceVersion)

	object.Labels["watch"] = "no"
	object = mustUpdate(t, endpoints, object)
	gone := expectEvent(t, w, watch.Deleted, "object", object.ResourceVersion)
	if gone.Labels["watch"] != "yes" {
		t.Errorf("labels in the event of leaving: got %v, want those that were selected last", gone.Labels)
	}
	patchAnnotation(t, endpoints, "object", "unseen")
	object, err := endpoints.Get(t.Context(), "object", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	object.Labels["watch"] = "yes"
	object = mustUpdate(t, endpoints, object)
	expectEvent(t, w, watch.Added, "object", object.ResourceVersion)
	version := patchAnnotation(t, endpoints, "object", "seen")
	expectEvent(t, w, watch.Modified, "object", version)
	mustDelete(t, endpoints, "object")
	expectEvent(t, w, watch.Deleted, "object", "")
}

// “Watchers should receive events on concurrent watches in same order”.
func TestWatchConcurrentOrder(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	first := currentVersion(t, endpoints)
	versions := []string{first}
	created := mustCreate(t, endpoints, newEndpoints("object"))
	versions = append(versions, created.ResourceVersion)
	for i := range 20 {
		versions = append(versions, patchAnnotation(t, endpoints, "object", strconv.Itoa(i)))
	}
	// A watch from each version sees just what came after it.
	for i, from := range versions[:len(versions)-1] {
		w := openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: from})
		var got []string
		for range versions[i+1:] {
			event := nextEvent(t, w)
			got = append(got, event.Object.(metav1.Object).GetResourceVersion())
		}
		w.Stop()
		if diff := cmp.Diff(versions[i+1:], got); diff != "" {
			t.Errorf("versions of the events after %s (-want +got):\n%s", from, diff)
		}
	}
}

// A watch by field selector sees one object alone, and a watch without a version begins
// with what is there.
func TestWatchOneObject(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	mustCreate(t, endpoints, newEndpoints("one"))
	mustCreate(t, endpoints, newEndpoints("other"))
	w := openWatch(t, endpoints, metav1.ListOptions{FieldSelector: "metadata.name=one"})
	expectEvent(t, w, watch.Added, "one", "")
	patchAnnotation(t, endpoints, "other", "unseen")
	version := patchAnnotation(t, endpoints, "one", "seen")
	expectEvent(t, w, watch.Modified, "one", version)
}

// Shortly before its time is up a watch that wants bookmarks gets one, so that its client
// goes on from there, however little happened to what it selects.
func TestWatchBookmarkBeforeTheEnd(t *testing.T) {
	t.Parallel()
	client, _, endpoints := sharedNamespace(t)
	version := currentVersion(t, endpoints)
	other := client.CoreV1().Endpoints(makeNamespace(t, client))
	created := mustCreate(t, other, newEndpoints("unseen"))
	w := openWatch(t, endpoints, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: new(int64(3))})
	event := nextEvent(t, w)
	if event.Type != watch.Bookmark {
		t.Fatalf("got event %s, want a bookmark", describe(event))
	}
	if got := versionOf(t, event.Object.(metav1.Object).GetResourceVersion()); got < versionOf(t, created.ResourceVersion) {
		t.Errorf("the bookmark is at version %d, want at least %s", got, created.ResourceVersion)
	}
	if event, open := <-w.ResultChan(); open {
		t.Errorf("got event %s after the bookmark, want the end", describe(event))
	}
}
