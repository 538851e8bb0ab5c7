package media_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/server/media"
)

// Bodies of many small elements are refused in every form before they are decoded, and those of
// ordinary objects are not.
func TestWeigh(t *testing.T) {
	c := media.New(newScheme(t))
	field := func(tag byte, value []byte) []byte {
		return append(binary.AppendUvarint([]byte{tag}, uint64(len(value))), value...)
	}
	proto := func(endpoints []byte) string { return "k8s\x00" + string(field(0x12, endpoints)) }
	const n = 450_000
	ordinary := corev1.Endpoints{Subsets: []corev1.EndpointSubset{{}}}
	for i := range 20_000 {
		node := "node"
		ordinary.Subsets[0].Addresses = append(ordinary.Subsets[0].Addresses, corev1.EndpointAddress{
			IP: fmt.Sprintf("10.0.%d.%d", i>>8, i&255), NodeName: &node, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "d", Name: fmt.Sprint("pod-", i), UID: "u"},
		})
	}
	message, err := ordinary.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		kind, body string
		tooLarge   bool
	}{
		"JSON":                    {runtime.ContentTypeJSON, `{"subsets":[` + strings.Repeat("{},", n) + `{}]}`, true},
		"a merge patch":           {string(types.MergePatchType), `{"subsets":[` + strings.Repeat("1,", n) + `1]}`, true},
		"an apply":                {string(types.ApplyYAMLPatchType), "subsets:\n" + strings.Repeat("- 1\n", n), true},
		"YAML":                    {yamlType, "{subsets: [" + strings.Repeat("a,", n) + "]}", true},
		"text in JSON":            {runtime.ContentTypeJSON, `{"metadata":"` + strings.Repeat("[,", n) + `"}`, false},
		"messages":                {protoType, proto(bytes.Repeat([]byte{0x12, 0}, n)), true},
		"messages in messages":    {protoType, proto(field(0x12, bytes.Repeat([]byte{0x0a, 0}, n))), true},
		"numbers":                 {protoType, proto(bytes.Repeat([]byte{0x18, 0}, n)), true},
		"in pieces":               {protoType, "k8s\x00" + strings.Repeat(string(field(0x12, bytes.Repeat([]byte{0x12, 0}, n/10))), 11), true},
		"an unusual field number": {protoType, proto(bytes.Repeat([]byte{0x92, 0x80, 0x80, 0x80, 0x80, 0x01, 0}, n)), true},
		"what cannot be read":     {protoType, proto(bytes.Repeat([]byte{0x0b, 0}, n)), true},
		"many addresses":          {protoType, proto(message), false},
		"text in protobuf":        {protoType, proto(field(0x0a, field(0x0a, bytes.Repeat([]byte{0x12, 0}, n)))), false},
		"no envelope":             {protoType, strings.Repeat("\x12\x00", n), false},
		"nothing in protobuf":     {protoType, "", false},
	} {
		weight, work, err := c.Weigh([]byte(tc.body), tc.kind, endpointsType)
		if apierrors.IsRequestEntityTooLargeError(err) != tc.tooLarge || tc.tooLarge != (err != nil) || !tc.tooLarge && (weight < int64(len(tc.body)) || work < len(tc.body)) {
			t.Errorf("%s: weight %d, work %d, %v", name, weight, work, err)
		}
		if tc.tooLarge && !strings.Contains(err.Error(), "names and values, the limit is 400000") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What aliases stand for weighs as if it stood there, and what only looks like them weighs
// nothing.
func TestWeighAliases(t *testing.T) {
	c := media.New(newScheme(t))
	const n = 1000
	bomb := "metadata: {name: a}\nsubsets: [&s {addresses: [&a {ip: 10.0.0.1}" + strings.Repeat(", *a", 99) + "]}" + strings.Repeat(", *s", n-1) + "]\n"
	for _, kind := range []string{yamlType, string(types.ApplyYAMLPatchType)} {
		weight, work, err := c.Weigh([]byte(bomb), kind, endpointsType)
		if least := n * 100 * len(`{"ip":"10.0.0.1"}`); err != nil || work < 4*least || weight < int64(least) || work > 40*least {
			t.Errorf("%s of %d bytes: weight %d, work %d, %v; it has %d bytes as JSON", kind, len(bomb), weight, work, err, least)
		}
		text := "metadata: {name: a, annotations: {a: 'a && b * c', b: &b x}}\n"
		if _, work, err := c.Weigh([]byte(text), kind, endpointsType); err != nil || work > 10*len(text) {
			t.Errorf("%s without aliases: work %d of %d bytes, %v", kind, work, len(text), err)
		}
	}
	if _, work, err := c.Weigh([]byte(bomb), runtime.ContentTypeJSON, endpointsType); err != nil || work > 10*len(bomb) {
		t.Errorf("what is no JSON: work %d, %v", work, err)
	}
}

// Small elements are more work than their size tells, patches and YAML several times that.
func TestWeighWork(t *testing.T) {
	c := media.New(newScheme(t))
	small := `{"subsets":[` + strings.Repeat("{},", 999) + `{}]}`
	large := `{"metadata":{"annotations":{"a":"` + strings.Repeat("x", 10_000) + `"}}}`
	const elements = 3 + 1000*2
	for _, tc := range []struct {
		kind, body string
		want       int
	}{
		{runtime.ContentTypeJSON, large, len(large)},
		{runtime.ContentTypeJSON, small, elements * 10},
		{string(types.MergePatchType), large, 4 * len(large)},
		{string(types.JSONPatchType), small, 4 * elements * 10},
		{yamlType, large, 4 * len(large)},
		{string(types.ApplyYAMLPatchType), large, 4 * len(large)},
	} {
		if _, work, err := c.Weigh([]byte(tc.body), tc.kind, endpointsType); err != nil || work != tc.want {
			t.Errorf("%s of %d bytes: work %d, %v, want %d", tc.kind, len(tc.body), work, err, tc.want)
		}
	}
}

// Bodies are nested no deeper than patches are.
func TestDecodeNesting(t *testing.T) {
	c := media.New(newScheme(t))
	for _, kind := range []string{runtime.ContentTypeJSON, yamlType} {
		for depth, refused := range map[int]bool{100: false, 101: true, 5000: true} {
			_, _, err := c.Decode([]byte(`{"x":`+strings.Repeat("[", depth-1)+strings.Repeat("]", depth-1)+`}`), kind, endpointsType, metav1.FieldValidationIgnore)
			if refused != (err != nil) || refused && (!apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "nested more than 100 levels deep")) {
				t.Errorf("%s, %d levels: %v", kind, depth, err)
			}
		}
	}
}
