package registry_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// directed is an object with something for every directive of strategic merge patches.
const directed = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"e","labels":{"a":"1"},"finalizers":["x/f","x/g"],` +
	`"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"s","uid":"u"}]},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]}`

func TestStrategicDirectives(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	before, _, err := s.patch(t, ns, "e", types.ApplyYAMLPatchType, directed, as("test", false))
	if err != nil {
		t.Fatal(err)
	}
	const (
		rejected  = "the server rejected our request"
		undefined = "was undeterminable"
		notScalar = "strategic merge patch format is not supported: $retainKeys, merge keys, and elements that $setElementOrder sorts"
	)
	for _, tc := range []struct {
		patch string
		code  int32 // 0: none, it is applied
		text  string
	}{
		{`{"$patch":"replace"}`, 422, "without its apiVersion"},
		{`{"$patch":"delete"}`, 422, "without its apiVersion"},
		{`{"$patch":"merge"}`, 422, rejected},
		{`{"$patch":"bogus"}`, 422, rejected},
		{`{"$patch":{}}`, 422, rejected},
		{`{"metadata":{"$patch":"replace"}}`, 400, undefined},
		{`{"metadata":{"$patch":"replace","name":"e"}}`, 0, ""},
		{`{"metadata":{"$patch":"delete"}}`, 400, undefined},
		{`{"metadata":{"$patch":null}}`, 422, rejected},
		{`{"metadata":{"labels":{"$patch":"replace","b":"2"}}}`, 0, ""},
		{`{"$retainKeys":["apiVersion","kind","metadata"]}`, 0, ""},
		{`{"$retainKeys":null}`, 400, "invalid patch format of retainKeys"},
		{`{"$retainKeys":[1]}`, 422, "without its apiVersion"},
		{`{"$retainKeys":[{}]}`, 400, notScalar},
		{`{"metadata":{"labels":{"$retainKeys":[[]]}}}`, 400, notScalar},
		{`{"metadata":{"ownerReferences":[{"uid":"u","$retainKeys":[{}]}]}}`, 400, notScalar},
		{`{"$deleteFromPrimitiveList":1}`, 400, "invalid patch format of primitive list"},
		{`{"$deleteFromPrimitiveList/subsets":[{}]}`, 422, rejected},
		{`{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/f"]}}`, 0, ""},
		{`{"metadata":{"$deleteFromPrimitiveList/finalizers":[{}]}}`, 422, rejected},
		{`{"$setElementOrder":[]}`, 400, "invalid patch format of setElementOrder list"},
		{`{"$setElementOrder/x":[]}`, 422, rejected},
		{`{"$setElementOrder/metadata":[]}`, 422, rejected},
		{`{"$setElementOrder/subsets":null}`, 422, rejected},
		{`{"$setElementOrder/subsets":[]}`, 400, notScalar},
		{`{"$setElementOrder/subsets":[{}],"subsets":[{}]}`, 400, notScalar},
		{`{"metadata":{"$setElementOrder/finalizers":["x/g","x/f"]}}`, 0, ""},
		{`{"metadata":{"$setElementOrder/finalizers":["x/g"],"finalizers":["x/h"]}}`, 422, rejected},
		{`{"metadata":{"$setElementOrder/finalizers":1}}`, 422, rejected},
		{`{"metadata":{"$setElementOrder/finalizers":[{}]}}`, 400, notScalar},
		{`{"metadata":{"finalizers":[null]}}`, 422, rejected},
		{`{"metadata":{"$setElementOrder/ownerReferences":[1]}}`, 422, rejected},
		{`{"metadata":{"ownerReferences":[{"$patch":"delete","uid":"u"}]}}`, 0, ""},
		{`{"metadata":{"ownerReferences":[{"$patch":"delete"}]}}`, 422, rejected},
		{`{"metadata":{"ownerReferences":[{"$patch":"merge"}]}}`, 422, rejected},
		{`{"metadata":{"ownerReferences":[{"uid":{}}]}}`, 400, notScalar},
		// What is in subsets is replaced, so that a directive in them is an unknown field.
		{`{"subsets":[{"$setElementOrder/addresses":[{}],"addresses":[{"ip":"10.0.0.2"}]}]}`, 0, ""},
	} {
		t.Run(tc.patch, func(t *testing.T) {
			_, _, err := s.patch(t, ns, "e", types.StrategicMergePatchType, tc.patch, &metav1.PatchOptions{FieldManager: "test", DryRun: []string{metav1.DryRunAll}})
			if tc.code != 0 {
				checkStatus(t, err, tc.code, tc.text)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	if diff := cmp.Diff(before, s.get(t, ns, "e")); diff != "" {
		t.Errorf("changed by what was refused (-want +got):\n%s", diff)
	}
}
