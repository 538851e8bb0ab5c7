package endpoints

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/test/harness"
)

// stored returns Endpoints as they come from the store.
func stored(t *testing.T, subsets string) *corev1.Endpoints {
	t.Helper()
	e := decode(t, `{"metadata":{"name":"x"},"subsets":`+subsets+`}`)
	e.UID = "u1"
	e.ResourceVersion = "5"
	e.CreationTimestamp = metav1.Unix(1_700_000_000, 0)
	return e
}

const linkLocal = `FieldValueInvalid subsets[0].addresses[0].ip: Invalid value: "169.254.1.1": ` + localText

var (
	valid   = port(`{"port":80}`)
	deleted = metav1.Unix(1_700_000_100, 0)
)

// updateCases change a copy of what is stored, or what is stored itself.
var updateCases = []struct {
	name   string
	old    string
	change func(old, e *corev1.Endpoints)
	want   []string
}{
	{"nothing", valid, func(_, _ *corev1.Endpoints) {}, nil},
	{"labels, annotations, addresses", valid, func(_, e *corev1.Endpoints) {
		e.Labels = map[string]string{"a": "b"}
		e.Annotations = map[string]string{"a": "any text"}
		e.Subsets[0].Addresses[0].IP = "10.0.0.2"
	}, nil},
	{"nodeName is mutable", address(`{"ip":"10.0.0.1","nodeName":"a"}`), func(_, e *corev1.Endpoints) {
		node := "b"
		e.Subsets[0].Addresses[0].NodeName = &node
	}, nil},
	{"a fault in the subsets", valid, func(_, e *corev1.Endpoints) { e.Subsets[0].Addresses[0].IP = "169.254.1.1" }, []string{linkLocal}},
	{"a stored fault, unchanged", address(`{"ip":"169.254.1.1"}`), func(_, e *corev1.Endpoints) {
		e.Labels = map[string]string{"a": "b"}
	}, nil},
	{"a stored fault, empty for null", address(`{"ip":"169.254.1.1"}`), func(old, _ *corev1.Endpoints) {
		old.Subsets[0].NotReadyAddresses = []corev1.EndpointAddress{}
	}, nil},
	{"a stored fault beside a change", address(`{"ip":"169.254.1.1"}`), func(_, e *corev1.Endpoints) {
		e.Subsets[0].Ports[0].Port = 81
	}, []string{linkLocal}},
	{"a stored fault does not excuse a label", address(`{"ip":"169.254.1.1"}`), func(_, e *corev1.Endpoints) {
		e.Labels = map[string]string{"a": "a b"}
	}, []string{`FieldValueInvalid metadata.labels: Invalid value: "a b": ` + valueText}},
	{"a label key, told once", valid, func(_, e *corev1.Endpoints) { e.Labels = map[string]string{"a b": "c"} }, []string{
		`FieldValueInvalid metadata.labels: Invalid value: "a b": ` + qualifiedText,
	}},
	{"another uid, told once", valid, func(_, e *corev1.Endpoints) { e.UID = "zzz" }, []string{
		`FieldValueInvalid metadata.uid: Invalid value: "zzz": field is immutable`,
	}},
	{"another name and namespace", valid, func(_, e *corev1.Endpoints) { e.Name, e.Namespace = "y", "other" }, []string{
		`FieldValueInvalid metadata.name: Invalid value: "y": field is immutable`,
		`FieldValueInvalid metadata.namespace: Invalid value: "other": field is immutable`,
	}},
	{"no resourceVersion", valid, func(_, e *corev1.Endpoints) { e.ResourceVersion = "" }, []string{
		`FieldValueInvalid metadata.resourceVersion: Invalid value: "": must be specified for an update`,
	}},
	{"an older generation", valid, func(old, e *corev1.Endpoints) { old.Generation, e.Generation = 7, 6 }, []string{
		`FieldValueInvalid metadata.generation: Invalid value: 6: must not be decremented`,
	}},
	{"another creationTimestamp", valid, func(_, e *corev1.Endpoints) { e.CreationTimestamp = metav1.NewTime(time.Unix(0, 0).UTC()) }, []string{
		`FieldValueInvalid metadata.creationTimestamp: Invalid value: "1970-01-01T00:00:00Z": field is immutable`,
	}},
	{"a finalizer without a domain", valid, func(_, e *corev1.Endpoints) { e.Finalizers = []string{"guard"} }, []string{
		`FieldValueInvalid metadata.finalizers[0]: Invalid value: "guard": name is neither a standard finalizer name nor is it fully qualified`,
	}},
	{"a new finalizer while being deleted", valid, func(old, e *corev1.Endpoints) {
		old.DeletionTimestamp, e.DeletionTimestamp = &deleted, &deleted
		old.Finalizers = []string{"example.com/guard"}
		e.Finalizers = []string{"example.com/guard", "example.com/late"}
	}, []string{
		`FieldValueForbidden metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"example.com/late"}`,
	}},
	{"the last finalizer away while being deleted", valid, func(old, e *corev1.Endpoints) {
		old.DeletionTimestamp, e.DeletionTimestamp = &deleted, &deleted
		old.Finalizers = []string{"example.com/guard"}
	}, nil},
	{"a bad generateName", valid, func(_, e *corev1.Endpoints) { e.GenerateName = "B%" }, []string{
		`FieldValueInvalid metadata.generateName: Invalid value: "B%": may not contain '%'`,
		`FieldValueInvalid metadata.generateName: Invalid value: "B%": ` + subdomainText,
	}},
	{"metadata before subsets", valid, func(_, e *corev1.Endpoints) {
		e.Subsets[0].Addresses[0].IP = "169.254.1.1"
		e.UID = "zzz"
		e.Labels = map[string]string{"a": "a b"}
	}, []string{
		`FieldValueInvalid metadata.labels: Invalid value: "a b": ` + valueText,
		`FieldValueInvalid metadata.uid: Invalid value: "zzz": field is immutable`,
		linkLocal,
	}},
}

func TestValidateUpdate(t *testing.T) {
	for _, tc := range updateCases {
		t.Run(tc.name, func(t *testing.T) {
			old := stored(t, tc.old)
			e := old.DeepCopy()
			tc.change(old, e)
			oldCopy := old.DeepCopy()
			got := Strategy{}.ValidateUpdate(e, old)
			if diff := cmp.Diff(append([]string{}, tc.want...), harness.Faults(got)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(oldCopy, old); diff != "" {
				t.Errorf("old was changed (-want +got):\n%s", diff)
			}
		})
	}
}
