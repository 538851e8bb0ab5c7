package registry_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/endpoints"
)

// configuration is Endpoints of n addresses with every field that a controller sets, as it
// is sent.
func configuration(n int) string {
	var b strings.Builder
	b.WriteString(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"e","namespace":"default","labels":{"app":"bench"}},"subsets":[{"addresses":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"ip":"10.0.%d.%d","nodeName":"node-%d","targetRef":{"kind":"Pod","name":"nginx-686bccd6f-%05d","namespace":"default","uid":"ae417968-4f69-40da-9228-2434%08d"}}`, i/250, 1+i%250, i%100, i, i)
	}
	b.WriteString(`],"ports":[{"name":"service0","port":80,"protocol":"TCP"}]}]}`)
	return b.String()
}

// finished is what the store holds of a configuration that the manager "test" has applied
// or, if applied is false, created.
func finished(t testing.TB, s *registry.Store, config string, applied bool) []byte {
	t.Helper()
	var obj *corev1.Endpoints
	if applied {
		out, _, err := s.PatchJSON(nil, "e", types.ApplyYAMLPatchType, []byte(config), as("test", false))
		if err != nil {
			t.Fatal(err)
		}
		obj = out.(*corev1.Endpoints)
	} else {
		obj = &corev1.Endpoints{}
		if err := json.Unmarshal([]byte(config), obj); err != nil {
			t.Fatal(err)
		}
		obj = s.Owned(obj, "test").(*corev1.Endpoints)
	}
	obj.UID, obj.ResourceVersion, obj.SelfLink = "ae417968-4f69-40da-9228-243400000000", "42", "/api/v1/namespaces/default/endpoints/e"
	obj.CreationTimestamp = metav1.Unix(1_700_000_000, 0)
	obj.APIVersion, obj.Kind = "v1", "Endpoints"
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func benchmarkPatch(b *testing.B, applied bool, kind types.PatchType, opts *metav1.PatchOptions, patch func(config string) string) {
	for _, n := range []int{1, 1000} {
		b.Run("addresses="+strconv.Itoa(n), func(b *testing.B) {
			s := newPatcher(b, endpoints.Resource(), shared.converter)
			config := configuration(n)
			change := s.Change(b, finished(b, s, config, applied), "e", kind, []byte(patch(config)), opts)
			b.ReportAllocs()
			for b.Loop() {
				change()
			}
		})
	}
}

// The benchmarks are of what lies between a patch and the object to validate, without
// decoding the object as it was.

func BenchmarkMergePatch(b *testing.B) {
	benchmarkPatch(b, false, types.MergePatchType, patchOptions(), func(string) string {
		return `{"metadata":{"labels":{"rev":"17x"}}}`
	})
}

func BenchmarkMergePatchSubsets(b *testing.B) {
	benchmarkPatch(b, false, types.MergePatchType, patchOptions(), func(config string) string {
		return "{" + config[strings.Index(config, `"subsets"`):]
	})
}

func BenchmarkStrategicPatch(b *testing.B) {
	benchmarkPatch(b, false, types.StrategicMergePatchType, patchOptions(), func(string) string {
		return `{"metadata":{"labels":{"rev":"17x"}}}`
	})
}

func BenchmarkJSONPatch(b *testing.B) {
	benchmarkPatch(b, false, types.JSONPatchType, patchOptions(), func(string) string {
		return `[{"op":"add","path":"/metadata/labels/rev","value":"17x"}]`
	})
}

// BenchmarkApply changes what the same manager applied before.
func BenchmarkApply(b *testing.B) {
	benchmarkPatch(b, true, types.ApplyYAMLPatchType, as("test", false), func(config string) string {
		return strings.Replace(config, `"ip":"10.0.0.1"`, `"ip":"10.0.0.255"`, 1)
	})
}

// BenchmarkApplyAgain changes nothing.
func BenchmarkApplyAgain(b *testing.B) {
	benchmarkPatch(b, true, types.ApplyYAMLPatchType, as("test", false), func(config string) string { return config })
}

// BenchmarkApplyForced takes the fields of whoever created the object.
func BenchmarkApplyForced(b *testing.B) {
	benchmarkPatch(b, false, types.ApplyYAMLPatchType, as("bench", true), func(config string) string {
		return strings.Replace(config, `"ip":"10.0.0.1"`, `"ip":"10.0.0.255"`, 1)
	})
}

// BenchmarkApplyCreates applies what does not exist yet.
func BenchmarkApplyCreates(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run("addresses="+strconv.Itoa(n), func(b *testing.B) {
			s := newPatcher(b, endpoints.Resource(), shared.converter)
			change := s.Change(b, nil, "e", types.ApplyYAMLPatchType, []byte(configuration(n)), as("test", false))
			b.ReportAllocs()
			for b.Loop() {
				change()
			}
		})
	}
}

// BenchmarkOwnership gives what an update changes to its manager.
func BenchmarkOwnership(b *testing.B) {
	for _, n := range []int{1, 1000} {
		var live, next corev1.Endpoints
		s := newPatcher(b, endpoints.Resource(), shared.converter)
		if err := json.Unmarshal(finished(b, s, configuration(n), false), &live); err != nil {
			b.Fatal(err)
		}
		for name, change := range map[string]func(){
			"nothing": func() {},
			"label":   func() { next.Labels = map[string]string{"app": "other"} },
			"subsets": func() { next.Subsets = next.DeepCopy().Subsets; next.Subsets[0].Addresses[0].IP = "10.0.0.255" },
		} {
			next = live
			change()
			fields := next.ManagedFields
			b.Run(fmt.Sprintf("%s/addresses=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					next.ManagedFields = fields
					s.OwnedBy(&live, &next, "other")
				}
			})
		}
		created := live
		created.ManagedFields, created.UID = nil, ""
		b.Run(fmt.Sprintf("created/addresses=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				created.ManagedFields = nil
				s.Owned(&created, "test")
			}
		})
	}
}
