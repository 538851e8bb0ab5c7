package registry_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
	"github.com/berth-project/berth/pkg/registry/resources/namespaces"
)

// The files under testdata/values are values as they stand in etcd. They are never
// changed: a release that writes something else adds files of its own, and reads these
// for ever.
var values = []struct {
	file     string
	resource *registry.Resource
	object   runtime.Object // what the value says
	written  bool           // today's server writes these very bytes
}{
	{"endpoints.json", endpoints.Resource(), fullEndpoints(), true},
	{"endpoints-name-only.json", endpoints.Resource(), nameOnlyEndpoints(), true},
	{"namespace.json", namespaces.Resource(), fullNamespace(), true},
	{"endpoints.json.zst", endpoints.Resource(), fullEndpoints(), false},
	{"endpoints.json.s2", endpoints.Resource(), fullEndpoints(), false},
	{"endpoints-foreign.json", endpoints.Resource(), fullEndpoints(), false},
	{"endpoints-foreign-labels-first.json", endpoints.Resource(), labelsFirstEndpoints(), false},
	{"endpoints-foreign-versioned.json", endpoints.Resource(), nameOnlyEndpoints(), false},
	{"namespace-foreign.json", namespaces.Resource(), fullNamespace(), false},
}

func TestStoredValuesAreRead(t *testing.T) {
	s := newStores(t, shared.store)
	for _, tc := range values {
		t.Run(tc.file, func(t *testing.T) {
			value := readValue(t, tc.file)
			name := objectName(t, tc.object)
			key := tc.resource.Prefix("golden") + name
			kv := put(t, key, value)
			defer remove(t, key)
			want := tc.object.DeepCopyObject()
			setVersion(t, want, kv.ModRevision)
			wantJSON, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			store := s.endpoints
			if tc.resource.API.Name == registry.Namespaces {
				store = s.namespaces
			}
			got, err := store.Get(t.Context(), "golden", name, &metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, typed[runtime.Object](t, got)); diff != "" {
				t.Errorf("the object differs (-want +got):\n%s", diff)
			}
			// The order within a value that another program wrote is its own.
			if served := got.JSON(); !bytes.Equal(sorted(t, served), sorted(t, wantJSON)) || tc.written && !bytes.Equal(served, wantJSON) {
				t.Errorf("served as\n%s, want\n%s", served, wantJSON)
			}
		})
	}
}

// sorted returns JSON with the names of every object in their order.
func sorted(t testing.TB, data []byte) []byte {
	t.Helper()
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEncodedValuesAreStable(t *testing.T) {
	s := newStores(t, shared.store)
	for _, tc := range values {
		if !tc.written {
			continue
		}
		store := s.endpoints
		if tc.resource.API.Name == registry.Namespaces {
			store = s.namespaces
		}
		got := valueOf(t, store, tc.object)
		if want := readValue(t, tc.file); !bytes.Equal(got, want) {
			t.Errorf("%s: encode writes\n%s, want\n%s", tc.file, got, want)
		}
	}
}

// A field that Kubernetes adds must be in the values that prove what is read.
func TestValuesHaveEveryField(t *testing.T) {
	for _, tc := range []struct {
		object runtime.Object
		except map[string]bool
	}{
		{fullEndpoints(), map[string]bool{"ObjectMeta.ResourceVersion": true}},
		{fullNamespace(), map[string]bool{"ObjectMeta.ResourceVersion": true, "ObjectMeta.Namespace": true}},
	} {
		for _, path := range zeroFields(reflect.ValueOf(tc.object).Elem(), "") {
			if !tc.except[path] {
				t.Errorf("%T has no value for %s", tc.object, path)
			}
		}
	}
}

// zeroFields returns the paths of the fields in v that have no value. Of a list it looks
// at the first element.
func zeroFields(v reflect.Value, path string) []string {
	if v.IsZero() {
		return []string{path}
	}
	switch v.Interface().(type) {
	case metav1.Time, *metav1.Time, *metav1.FieldsV1:
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		return zeroFields(v.Elem(), path)
	case reflect.Slice:
		return zeroFields(v.Index(0), path+"[0]")
	case reflect.Struct:
		var paths []string
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if path != "" {
				name = path + "." + name
			}
			paths = append(paths, zeroFields(v.Field(i), name)...)
		}
		return paths
	}
	return nil
}

func objectName(t testing.TB, obj runtime.Object) string {
	t.Helper()
	accessor, err := meta.Accessor(obj)
	if err != nil {
		t.Fatal(err)
	}
	return accessor.GetName()
}

func readValue(t testing.TB, file string) []byte {
	t.Helper()
	value, err := os.ReadFile(filepath.Join("testdata", "values", file))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func fullMeta(name, namespace, selfLink string) metav1.ObjectMeta {
	yes, seconds := true, int64(30)
	created := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Local())
	deleted := metav1.NewTime(created.Add(time.Hour))
	return metav1.ObjectMeta{
		Name: name, GenerateName: "full-", Namespace: namespace, SelfLink: selfLink,
		UID: "6f1c2f6e-8a52-4e0c-9d7c-0f3f5a1b2c3d", Generation: 7,
		CreationTimestamp: created, DeletionTimestamp: &deleted, DeletionGracePeriodSeconds: &seconds,
		Labels:      map[string]string{"uid": "label", "app.example.com/name": "a_b.c"},
		Annotations: map[string]string{"note": "<b>&\"}{\\\u2028é", "uid": `"uid":"x"`},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Service", Name: "owner", UID: "u-1", Controller: &yes, BlockOwnerDeletion: &yes,
		}},
		Finalizers: []string{"example.com/hold"},
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: "kubectl", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &created,
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:subsets":{}}`), Subresource: "status",
		}},
	}
}

func fullEndpoints() *corev1.Endpoints {
	hostname, node, protocol := "web-0", "node-1", "example.com/http"
	return &corev1.Endpoints{
		TypeMeta:   metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"},
		ObjectMeta: fullMeta("full-endpoints", "golden", "/api/v1/namespaces/golden/endpoints/full-endpoints"),
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{
				IP: "10.0.0.1", Hostname: hostname, NodeName: &node,
				TargetRef: &corev1.ObjectReference{
					Kind: "Pod", Namespace: "golden", Name: "web-0", UID: "u-2", APIVersion: "v1", ResourceVersion: "12",
					FieldPath: "spec.containers{web}",
				},
			}},
			NotReadyAddresses: []corev1.EndpointAddress{{
				IP: "2001:db8::1", Hostname: "web-1", NodeName: &node,
				TargetRef: &corev1.ObjectReference{
					Kind: "Pod", Namespace: "golden", Name: "web-1", UID: "u-3", APIVersion: "v1", ResourceVersion: "13",
					FieldPath: "spec",
				},
			}},
			Ports: []corev1.EndpointPort{
				{Name: "http", Port: 8080, Protocol: corev1.ProtocolTCP, AppProtocol: &protocol},
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
			},
		}},
	}
}

func nameOnlyEndpoints() *corev1.Endpoints {
	return &corev1.Endpoints{
		TypeMeta: metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "a", Namespace: "golden", SelfLink: "/api/v1/namespaces/golden/endpoints/a", UID: "u-1",
			CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Local()),
		},
	}
}

func labelsFirstEndpoints() *corev1.Endpoints {
	obj := nameOnlyEndpoints()
	obj.Labels = map[string]string{"uid": "label"}
	return obj
}

func fullNamespace() *corev1.Namespace {
	meta := fullMeta("full-namespace", "", "/api/v1/namespaces/full-namespace")
	return &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
		ObjectMeta: meta,
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
		Status: corev1.NamespaceStatus{
			Phase: corev1.NamespaceTerminating,
			Conditions: []corev1.NamespaceCondition{{
				Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionTrue,
				LastTransitionTime: meta.CreationTimestamp, Reason: "SomeResourcesRemain", Message: "1 left",
			}},
		},
	}
}
