package clients

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// The tests of this file follow test/e2e/apimachinery/chunking.go.

const chunkedObjects = 400

// createMany creates chunkedObjects objects, eight at a time, and returns their names in
// the order of a list.
func createMany(t *testing.T, client typedcorev1.EndpointsInterface) []string {
	t.Helper()
	var all []string
	for i := range chunkedObjects {
		all = append(all, fmt.Sprintf("object-%03d", i))
	}
	const writers = 8
	results := make(chan error, writers)
	for first := range writers {
		go func() {
			var err error
			for i := first; i < len(all) && err == nil; i += writers {
				_, err = client.Create(t.Context(), newEndpoints(all[i]), metav1.CreateOptions{})
			}
			results <- err
		}()
	}
	var failed error
	for range writers {
		failed = errors.Join(failed, <-results)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return all
}

// “Servers with support for API chunking should return chunks of results for list calls”.
func TestChunking(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	want := createMany(t, endpoints)
	for _, limit := range []int64{17, 133, 400, 401} {
		var got []string
		opts := metav1.ListOptions{Limit: limit}
		version := ""
		for {
			page, err := endpoints.List(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			if version == "" {
				version = page.ResourceVersion
				// A change in between must not show on later pages.
				patchAnnotation(t, endpoints, want[len(want)-1], fmt.Sprint(limit))
			}
			if page.ResourceVersion != version {
				t.Errorf("limit %d: a page has version %s, the first one %s", limit, page.ResourceVersion, version)
			}
			got = append(got, names(page)...)
			remaining := int64(0)
			if page.RemainingItemCount != nil {
				remaining = *page.RemainingItemCount
			}
			if remaining != int64(len(want)-len(got)) {
				t.Errorf("limit %d: %d objects remain after %d, want %d", limit, remaining, len(got), len(want)-len(got))
			}
			if page.Continue == "" {
				break
			}
			if len(page.Items) != int(limit) {
				t.Errorf("limit %d: a page before the last has %d objects", limit, len(page.Items))
			}
			opts.Continue = page.Continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %d: all pages together (-want +got):\n%s", limit, diff)
		}
	}
	whole, err := endpoints.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, names(whole)); diff != "" {
		t.Errorf("a list without a limit (-want +got):\n%s", diff)
	}
}

// “Servers with support for API chunking should support continue listing from the last key
// if the original version has been compacted away, though the list is inconsistent”.
func TestChunkingAfterCompaction(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--etcd-compaction-interval=500ms")
	endpoints := server.client(t).CoreV1().Endpoints(metav1.NamespaceDefault)
	want := createMany(t, endpoints)

	const limit = 40
	first, err := endpoints.List(t.Context(), metav1.ListOptions{Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	mustDelete(t, endpoints, want[limit])
	mustCreate(t, endpoints, newEndpoints("object-390a"))
	token := waitExpired(t, endpoints, metav1.ListOptions{Limit: limit, Continue: first.Continue})
	if token == "" {
		t.Fatal("the 410 has no token to go on with")
	}
	second, err := endpoints.List(t.Context(), metav1.ListOptions{Limit: limit, Continue: token})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[limit+1:2*limit+1], names(second)); diff != "" {
		t.Errorf("the page after the 410, of the newest state (-want +got):\n%s", diff)
	}
	if second.ResourceVersion == first.ResourceVersion {
		t.Error("the page after the 410 has the version of the expired list")
	}
	rest, err := endpoints.List(t.Context(), metav1.ListOptions{Continue: second.Continue})
	if apierrors.IsResourceExpired(err) { // the compaction goes on meanwhile
		token := err.(apierrors.APIStatus).Status().Continue
		rest, err = endpoints.List(t.Context(), metav1.ListOptions{Continue: token})
	}
	if err != nil {
		t.Fatal(err)
	}
	wantRest := append(append([]string{}, want[2*limit+1:391]...), "object-390a")
	if diff := cmp.Diff(append(wantRest, want[391:]...), names(rest)); diff != "" {
		t.Errorf("the rest (-want +got):\n%s", diff)
	}
}

// waitExpired repeats the list until it is too old, and returns the token of that answer.
func waitExpired(t *testing.T, client typedcorev1.EndpointsInterface, opts metav1.ListOptions) (token string) {
	t.Helper()
	eventually(t, "the list is not compacted away", func(ctx context.Context) error {
		_, err := client.List(ctx, opts)
		if !apierrors.IsResourceExpired(err) {
			return fmt.Errorf("list: %w", err)
		}
		checkStatus(t, "an expired list", err, 410, metav1.StatusReasonExpired)
		token = err.(apierrors.APIStatus).Status().Continue
		return nil
	})
	return token
}
