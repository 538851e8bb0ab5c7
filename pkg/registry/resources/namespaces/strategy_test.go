package namespaces

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/test/harness"
)

const (
	labelText     = `a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`
	qualifiedText = `name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`
	notStandard   = `name is neither a standard finalizer name nor is it fully qualified`
)

func decode(t testing.TB, doc string) *corev1.Namespace {
	t.Helper()
	var ns corev1.Namespace
	if err := json.Unmarshal([]byte(doc), &ns); err != nil {
		t.Fatalf("decode %s: %v", doc, err)
	}
	Strategy{}.Default(&ns)
	return &ns
}

func TestDefault(t *testing.T) {
	for _, tc := range []struct {
		name, doc string
		want      map[string]string
	}{
		{"no labels", `{"metadata":{"name":"a"}}`, map[string]string{"kubernetes.io/metadata.name": "a"}},
		{"beside others", `{"metadata":{"name":"a","labels":{"team":"x"}}}`, map[string]string{"kubernetes.io/metadata.name": "a", "team": "x"}},
		{"over another value", `{"metadata":{"name":"a","labels":{"kubernetes.io/metadata.name":"b"}}}`, map[string]string{"kubernetes.io/metadata.name": "a"}},
		{"no name yet", `{"metadata":{"generateName":"a-"}}`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, decode(t, tc.doc).Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrepareForCreate(t *testing.T) {
	for _, tc := range []struct {
		name, doc string
		want      []corev1.FinalizerName
	}{
		{"plain", `{"metadata":{"name":"a"}}`, []corev1.FinalizerName{"kubernetes"}},
		{"with the finalizer", `{"metadata":{"name":"a"},"spec":{"finalizers":["kubernetes"]}}`, []corev1.FinalizerName{"kubernetes"}},
		{"with another finalizer", `{"metadata":{"name":"a"},"spec":{"finalizers":["example.com/x"]}}`, []corev1.FinalizerName{"example.com/x", "kubernetes"}},
		{"with a status", `{"metadata":{"name":"a"},"status":{"phase":"Terminating","conditions":[{"type":"X"}]}}`, []corev1.FinalizerName{"kubernetes"}},
		{"with a generated name", `{"metadata":{"generateName":"a"}}`, []corev1.FinalizerName{"kubernetes"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := decode(t, tc.doc)
			ns.Name = "a"
			Strategy{}.PrepareForCreate(ns)
			if diff := cmp.Diff(tc.want, ns.Spec.Finalizers); diff != "" {
				t.Errorf("spec.finalizers (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(corev1.NamespaceStatus{Phase: "Active"}, ns.Status); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
			if got := ns.Labels["kubernetes.io/metadata.name"]; got != "a" {
				t.Errorf("label kubernetes.io/metadata.name: %q, want a", got)
			}
		})
	}
}

func TestPrepareForUpdate(t *testing.T) {
	old := decode(t, `{"metadata":{"name":"a"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Terminating","conditions":[{"type":"X","status":"True"}]}}`)
	wantOld := old.DeepCopy()
	ns := decode(t, `{"metadata":{"name":"a","labels":{"team":"b"}},"spec":{"finalizers":["example.com/x"]},"status":{"phase":"Active"}}`)
	delete(ns.Labels, "kubernetes.io/metadata.name")
	Strategy{}.PrepareForUpdate(ns, old)
	want := old.DeepCopy()
	want.Labels = map[string]string{"kubernetes.io/metadata.name": "a", "team": "b"}
	if diff := cmp.Diff(want, ns); diff != "" {
		t.Errorf("namespace (-want +got):\n%s", diff)
	}
	ns.Spec.Finalizers[0], ns.Status.Conditions[0].Type = "changed", "changed"
	if diff := cmp.Diff(wantOld, old); diff != "" {
		t.Errorf("old shares memory with the new namespace (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tc := range []struct {
		name, doc string
		want      []string
	}{
		{"plain", `{"metadata":{"name":"kube-system"}}`, nil},
		{"63 characters", `{"metadata":{"name":"` + long[:63] + `"}}`, nil},
		{"no name", `{"metadata":{}}`, []string{`FieldValueRequired metadata.name: Required value: name or generateName is required`}},
		{"dots", `{"metadata":{"name":"a.b"}}`, []string{`FieldValueInvalid metadata.name: Invalid value: "a.b": must not contain dots`}},
		{"upper case", `{"metadata":{"name":"Upper"}}`, []string{`FieldValueInvalid metadata.name: Invalid value: "Upper": ` + labelText}},
		{"64 characters", `{"metadata":{"name":"` + long + `"}}`, []string{
			`FieldValueInvalid metadata.name: Invalid value: "` + long + `": must be no more than 63 characters`,
			`FieldValueInvalid metadata.labels: Invalid value: "` + long + `": must be no more than 63 bytes`,
		}},
		{"in a namespace", `{"metadata":{"name":"a","namespace":"b"}}`, []string{`FieldValueForbidden metadata.namespace: Forbidden: not allowed on this type`}},
		{"metadata.finalizers", `{"metadata":{"name":"a","finalizers":["guard"]}}`, []string{
			`FieldValueInvalid metadata.finalizers[0]: Invalid value: "guard": ` + notStandard,
		}},
		{"spec.finalizers", `{"metadata":{"name":"a"},"spec":{"finalizers":["kubernetes","orphan","example.com/x"]}}`, nil},
		{"spec.finalizers without a domain", `{"metadata":{"name":"a"},"spec":{"finalizers":["guard","a b"]}}`, []string{
			`FieldValueInvalid spec.finalizers: Invalid value: "guard": ` + notStandard,
			`FieldValueInvalid spec.finalizers: Invalid value: "a b": ` + qualifiedText,
			`FieldValueInvalid spec.finalizers: Invalid value: "a b": ` + notStandard,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := decode(t, tc.doc)
			Strategy{}.PrepareForCreate(ns)
			got := Strategy{}.Validate(ns)
			if diff := cmp.Diff(append([]string{}, tc.want...), harness.Faults(got)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	deleted := metav1.Unix(1_700_000_100, 0)
	terminating := func(ns *corev1.Namespace) {
		ns.DeletionTimestamp = &deleted
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	for _, tc := range []struct {
		name   string
		change func(old, ns *corev1.Namespace)
		want   []string
	}{
		{"labels", func(_, ns *corev1.Namespace) { ns.Labels["team"] = "b" }, nil},
		{"labels of a terminating one", func(old, ns *corev1.Namespace) {
			terminating(old)
			ns.DeletionTimestamp = &deleted
			ns.Labels["team"] = "b"
		}, nil},
		{"a finalizer for a terminating one", func(old, ns *corev1.Namespace) {
			terminating(old)
			ns.DeletionTimestamp = &deleted
			ns.Finalizers = []string{"example.com/late"}
		}, []string{`FieldValueForbidden metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"example.com/late"}`}},
		{"an undone deletion", func(old, _ *corev1.Namespace) { terminating(old) }, []string{
			`FieldValueInvalid metadata.deletionTimestamp: Invalid value: null: field is immutable`,
		}},
		{"another uid", func(_, ns *corev1.Namespace) { ns.UID = "zzz" }, []string{`FieldValueInvalid metadata.uid: Invalid value: "zzz": field is immutable`}},
		{"another name", func(_, ns *corev1.Namespace) { ns.Name = "b" }, []string{`FieldValueInvalid metadata.name: Invalid value: "b": field is immutable`}},
		{"no resourceVersion", func(_, ns *corev1.Namespace) { ns.ResourceVersion = "" }, []string{
			`FieldValueInvalid metadata.resourceVersion: Invalid value: "": must be specified for an update`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := decode(t, `{"metadata":{"name":"a","uid":"u1","resourceVersion":"5"}}`)
			Strategy{}.PrepareForCreate(old)
			ns := old.DeepCopy()
			tc.change(old, ns)
			Strategy{}.PrepareForUpdate(ns, old)
			got := Strategy{}.ValidateUpdate(ns, old)
			if diff := cmp.Diff(append([]string{}, tc.want...), harness.Faults(got)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzValidate holds that no decoded JSON makes the strategy panic, and that what the
// server sets is set whatever the client sends.
func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a"}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		var ns corev1.Namespace
		if json.Unmarshal(doc, &ns) != nil {
			return
		}
		s := Strategy{}
		s.Default(&ns)
		s.PrepareForCreate(&ns)
		if ns.Status.Phase != corev1.NamespaceActive || ns.Name != "" && ns.Labels[corev1.LabelMetadataName] != ns.Name {
			t.Errorf("phase %q, labels %q of namespace %q", ns.Status.Phase, ns.Labels, ns.Name)
		}
		if errs := s.Validate(&ns); len(errs) > 0 {
			_ = errs.ToAggregate().Error()
		}
		old := ns.DeepCopy()
		s.PrepareForUpdate(&ns, old)
		s.ValidateUpdate(&ns, old)
		s.ValidateUpdate(&ns, &corev1.Namespace{})
	})
}

func BenchmarkValidate(b *testing.B) {
	ns := decode(b, `{"metadata":{"name":"team-a","labels":{"team":"a"}}}`)
	Strategy{}.PrepareForCreate(ns)
	b.ReportAllocs()
	for b.Loop() {
		if errs := (Strategy{}).Validate(ns); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}
