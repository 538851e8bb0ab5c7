package registry

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
)

// FuzzName compares the readers of names that need no regular expression with those of
// apimachinery that they stand in for.
func FuzzName(f *testing.F) {
	for _, s := range []string{
		"a.b-c", "-a", "a..b", "a-", "A_b.C", "x/y", "example.com/Name", "/a", "a/", "a/b/c", "a\n", "\u00e9", "",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a.", 127) + "/x", strings.Repeat("a", 254),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, tc := range map[string]struct {
			got  bool
			want []string
		}{
			"IsDNSLabel":      {IsDNSLabel(s), utilvalidation.IsDNS1123Label(s)},
			"IsDNSSubdomain":  {IsDNSSubdomain(s), utilvalidation.IsDNS1123Subdomain(s)},
			"isQualifiedName": {isQualifiedName(s), utilvalidation.IsQualifiedName(s)},
			"isLabel":         {s == "" || isLabel(s), utilvalidation.IsValidLabelValue(s)},
		} {
			if tc.got != (len(tc.want) == 0) {
				t.Errorf("%s(%q) = %t, but apimachinery says %q", name, s, tc.got, tc.want)
			}
		}
	})
}

// Whatever is called plain, apimachinery finds no fault in. Everything below is changed one
// by one in metadata that is plain.
func TestPlainMetadata(t *testing.T) {
	at := metav1.NewTime(time.Unix(1_700_000_000, 0))
	seconds := int64(1)
	old := &metav1.ObjectMeta{
		Name: "a", Namespace: "n", UID: "u", ResourceVersion: "1", CreationTimestamp: at, Generation: 1,
		Labels:        map[string]string{"app.kubernetes.io/name": "Web_1", "empty": ""},
		Annotations:   map[string]string{"example.com/Any": "\x00"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl edit", Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1"}},
	}
	same := old.DeepCopy()
	same.CreationTimestamp = metav1.NewTime(at.In(time.FixedZone("east", 3600)))
	if !isPlain(same, true) || !isPlainSuccessor(same, old) {
		t.Fatal("plain metadata is not called plain")
	}
	names := func(string, bool) []string { return nil }
	for name, change := range map[string]func(*metav1.ObjectMeta){
		"nothing":             func(*metav1.ObjectMeta) {},
		"no name":             func(m *metav1.ObjectMeta) { m.Name = "" },
		"other name":          func(m *metav1.ObjectMeta) { m.Name = "b" },
		"name in capitals":    func(m *metav1.ObjectMeta) { m.Name = "A" },
		"generateName":        func(m *metav1.ObjectMeta) { m.GenerateName = "a/" },
		"no namespace":        func(m *metav1.ObjectMeta) { m.Namespace = "" },
		"other namespace":     func(m *metav1.ObjectMeta) { m.Namespace = "m" },
		"dotted namespace":    func(m *metav1.ObjectMeta) { m.Namespace = "n.n" },
		"no uid":              func(m *metav1.ObjectMeta) { m.UID = "" },
		"no version":          func(m *metav1.ObjectMeta) { m.ResourceVersion = "" },
		"later":               func(m *metav1.ObjectMeta) { m.CreationTimestamp = metav1.NewTime(at.Add(time.Second)) },
		"no time":             func(m *metav1.ObjectMeta) { m.CreationTimestamp = metav1.Time{} },
		"generation":          func(m *metav1.ObjectMeta) { m.Generation = 0 },
		"negative generation": func(m *metav1.ObjectMeta) { m.Generation = -1 },
		"being deleted":       func(m *metav1.ObjectMeta) { m.DeletionTimestamp = &at },
		"grace period":        func(m *metav1.ObjectMeta) { m.DeletionGracePeriodSeconds = &seconds },
		"label key":           func(m *metav1.ObjectMeta) { m.Labels["a b"] = "" },
		"label prefix":        func(m *metav1.ObjectMeta) { m.Labels["A/b"] = "" },
		"label value":         func(m *metav1.ObjectMeta) { m.Labels["a"] = "a/b" },
		"annotation key":      func(m *metav1.ObjectMeta) { m.Annotations["a/b/c"] = "" },
		"annotation prefix":   func(m *metav1.ObjectMeta) { m.Annotations["A.com/b"] = "" },
		"annotations' size": func(m *metav1.ObjectMeta) {
			m.Annotations["a"] = strings.Repeat("x", validation.TotalAnnotationSizeLimitB)
		},
		"owner":        func(m *metav1.ObjectMeta) { m.OwnerReferences = []metav1.OwnerReference{{}} },
		"finalizer":    func(m *metav1.ObjectMeta) { m.Finalizers = []string{"a"} },
		"manager":      func(m *metav1.ObjectMeta) { m.ManagedFields[0].Manager = "a\t" },
		"long manager": func(m *metav1.ObjectMeta) { m.ManagedFields[0].Manager = strings.Repeat("m", 129) },
		"operation":    func(m *metav1.ObjectMeta) { m.ManagedFields[0].Operation = "" },
		"fields' type": func(m *metav1.ObjectMeta) { m.ManagedFields[0].FieldsType = "FieldsV2" },
		"subresource":  func(m *metav1.ObjectMeta) { m.ManagedFields[0].Subresource = strings.Repeat("s", 300) },
	} {
		meta := old.DeepCopy()
		change(meta)
		for _, namespaced := range []bool{true, false} {
			faults := validation.ValidateObjectMeta(meta, namespaced, names, metadataPath)
			if isPlain(meta, namespaced) && len(append(faults, validateFinalizerNames(meta.Finalizers)...)) > 0 {
				t.Errorf("%s: plain, but %v", name, faults)
			}
			faults = append(faults, validation.ValidateObjectMetaUpdate(meta, old, metadataPath)...)
			if isPlain(meta, namespaced) && isPlainSuccessor(meta, old) && len(faults) > 0 {
				t.Errorf("%s: a plain successor, but %v", name, faults)
			}
		}
		if name != "nothing" && name != "annotation prefix" && isPlain(meta, true) && isPlainSuccessor(meta, old) {
			t.Errorf("%s: nothing is looked at", name)
		}
	}
}
