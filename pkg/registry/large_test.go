package registry_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// manyAddresses returns Endpoints that take some 150 bytes of JSON for each address.
func manyAddresses(name string, n int) *corev1.Endpoints {
	e := newEndpoints(name)
	e.Subsets[0].Addresses = make([]corev1.EndpointAddress, n)
	for i := range n {
		node := fmt.Sprint("node-", i%100)
		e.Subsets[0].Addresses[i] = corev1.EndpointAddress{
			IP: fmt.Sprintf("10.%d.%d.%d", 1+i/62500, i/250%250, 1+i%250), NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprint("pod-", i), UID: types.UID(fmt.Sprintf("ae417968-4f69-40da-9228-2434%08d", i))},
		}
	}
	return e
}

// TestLargeObjects holds an object of 20,000 addresses, whose JSON is twice of what etcd
// takes by default, to all that small ones can do.
func TestLargeObjects(t *testing.T) {
	store, err := etcd.New(shared.db.Client(), etcd.Config{}) // the limit of an etcd with its defaults
	if err != nil {
		t.Fatal(err)
	}
	s := newStores(t, store)
	ns := s.newNamespace(t)
	created := s.create(t, ns, manyAddresses("large", 20_000))
	if kv := stored(t, endpoints.Resource().Key(ns, "large")); !bytes.HasPrefix(kv.Value, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		t.Errorf("stored as it is, in %d bytes", len(kv.Value))
	}
	got, err := s.endpoints.Get(t.Context(), ns, "large", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(created, typed[*corev1.Endpoints](t, got)); diff != "" {
		t.Errorf("read back (-created +got):\n%s", diff)
	}
	got, _, err = patched(t.Context(), s.endpoints, ns, "large", "", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), &metav1.PatchOptions{FieldManager: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if e := typed[*corev1.Endpoints](t, got); len(e.Subsets[0].Addresses) != 20_000 || e.Labels["a"] != "b" {
		t.Errorf("patched to %d addresses and labels %v", len(e.Subsets[0].Addresses), e.Labels)
	}
	if _, _, err := s.endpoints.Delete(t.Context(), ns, "large", &metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}
