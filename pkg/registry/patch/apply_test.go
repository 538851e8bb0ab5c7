package patch_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/registry/patch"
)

func TestDecodeApply(t *testing.T) {
	config := map[string]any{"kind": "Endpoints", "subsets": []any{map[string]any{"ports": []any{map[string]any{"port": int64(80)}}}}}
	for name, tc := range map[string]struct {
		data, fault string
		want        map[string]any
	}{
		"JSON":           {`{"kind":"Endpoints","subsets":[{"ports":[{"port":80}]}]}`, "", config},
		"YAML":           {"kind: Endpoints\nsubsets:\n- ports:\n  - port: 80\n", "", config},
		"YAML with flow": {"{kind: Endpoints, subsets: [{ports: [{port: 80}]}]}", "", config},
		"JSON, twice":    {`{"kind":"x","kind":"Endpoints","subsets":[{"ports":[{"port":80}]}]}`, "error converting YAML to JSON: yaml: unmarshal errors:\n  line 1: key \"kind\" already set in map", config},
		"YAML, twice":    {"kind: x\nkind: Endpoints\nsubsets: [{ports: [{port: 80}]}]\n", "error converting YAML to JSON: yaml: unmarshal errors:\n  line 2: key \"kind\" already set in map", config},
		"null":           {"null", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, fault, err := patch.DecodeApply([]byte(tc.data))
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			if fault != nil {
				text = fault.Error()
			}
			if diff := cmp.Diff(tc.want, got.Object); diff != "" || text != tc.fault {
				t.Errorf("fault %q, want %q (-want +got):\n%s", text, tc.fault, diff)
			}
		})
	}
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + "}" }
	for _, tc := range []struct {
		data string
		code int32
		text string
	}{
		{"- x", 400, "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array"},
		{`["x"]`, 400, "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array"},
		{"\t", 400, "error decoding YAML: error converting YAML to JSON: yaml: "},
		{deep(101), 400, "more than 100 levels deep"},
		{deep(9000), 400, "more than 100 levels deep"},
		{deep(400_000), 400, "exceeded max depth"},
		{"a: " + deep(100), 400, "more than 100 levels deep"},
		{"a: &a " + strings.Repeat("x", 1_000_000) + "\nb: [" + strings.Repeat("*a, ", 9) + "]", 413, "the aliases and tags of the YAML expand it to more than 8388608 bytes"},
	} {
		_, _, err := patch.DecodeApply([]byte(tc.data))
		check(t, err, tc.code, tc.text)
	}
	if _, _, err := patch.DecodeApply([]byte(deep(100))); err != nil {
		t.Error(err)
	}
}

// Whatever the bytes are, they are a configuration, or are refused.
func FuzzDecodeApply(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a"},"subsets":[{"ports":[{"port":80}]}]}`))
	f.Add([]byte("a: &a [1, *a]\nb: {<<: *a, ? [x] : y}\n--- !!binary ZQ==\n"))
	f.Add([]byte(`{"a":1e400,"b":-0,"c":9223372036854775808,"a":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, fault, err := patch.DecodeApply(data)
		if err != nil {
			if !apierrors.IsBadRequest(err) && !apierrors.IsRequestEntityTooLargeError(err) {
				t.Errorf("got %v", err)
			}
			return
		}
		if fault != nil && fault.Error() == "" {
			t.Error("the fault says nothing")
		}
		config.DeepCopy() // panics for what is not of JSON
	})
}
