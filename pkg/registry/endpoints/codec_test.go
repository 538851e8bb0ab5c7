package endpoints

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/randfill"
)

// What clients send and what is stored must not take the slow way.
func TestPlainJSONIsDecoded(t *testing.T) {
	stored, err := os.ReadFile(filepath.Join("..", "testdata", "values", "endpoints.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"one address":      string(body(1)),
		"many addresses":   string(body(2000)),
		"every field":      string(stored),
		"white space":      " {\n\t\"metadata\" : { \"name\" : \"a\" , \"labels\" : { } } ,\r\n \"subsets\" : [ { \"ports\" : [ { \"port\" : 80 } ] } , { } ] } \n",
		"empty":            `{}`,
		"nothing":          `null`,
		"nulls":            `{"kind":null,"metadata":{"name":null,"creationTimestamp":null,"deletionTimestamp":null,"deletionGracePeriodSeconds":null,"generation":null,"labels":null,"finalizers":null,"managedFields":[{"fieldsV1":null,"time":null}],"ownerReferences":[{"controller":null}]},"subsets":null}`,
		"null elements":    `{"metadata":{"labels":{"a":null},"finalizers":[null,"a"],"ownerReferences":[null]},"subsets":[null,{"addresses":[null,{"ip":null,"nodeName":null,"targetRef":null}],"ports":[null,{"port":null,"appProtocol":null}]}]}`,
		"empty lists":      `{"metadata":{"labels":{},"annotations":{},"finalizers":[],"managedFields":[],"ownerReferences":[]},"subsets":[]}`,
		"escapes":          `{"metadata":{"annotations":{"\u0061\n":"\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00\uFFFD"}}}`,
		"an escaped field": `{"metad\u0061ta":{"name":"a"}}`,
		"not ASCII":        `{"metadata":{"annotations":{"é":"日本 ` + "\u2028\x7f" + `"}}}`,
		"port bounds":      `{"subsets":[{"ports":[{"port":2147483647},{"port":-2147483648},{"port":0},{"port":-0}]}]}`,
		"64 bits":          `{"metadata":{"generation":9223372036854775807,"deletionGracePeriodSeconds":-9223372036854775808}}`,
		"times":            `{"metadata":{"creationTimestamp":"2026-01-02T03:04:05.678+02:00","deletionTimestamp":"2026-01-02T03:04:05Z","managedFields":[{"time":"2026-01-02T03:04:05Z"}]}}`,
		"FieldsV1":         `{"metadata":{"managedFields":[{"fieldsV1": { "f:metadata":{"f:labels":{".":{},"k:{\"uid\":\"1\"}":{},"v:\u003c":null}} , "f:a":{}} }]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if !decodeJSON([]byte(data), &corev1.Endpoints{}) {
				t.Errorf("refused: %.200s", data)
			}
			compareWithKubernetes(t, []byte(data))
		})
	}
}

func TestUnusualJSONIsNotDecoded(t *testing.T) {
	for name, data := range map[string]string{
		"no JSON":                  ``,
		"cut":                      `{"metadata":{"name":"a"`,
		"cut in a string":          `{"metadata":{"name":"a`,
		"cut after an escape":      `{"metadata":{"name":"\`,
		"more behind it":           `{} {}`,
		"a zero byte behind it":    "{}\x00",
		"a list":                   `[]`,
		"no comma":                 `{"kind":"a" "apiVersion":"b"}`,
		"a final comma":            `{"kind":"a",}`,
		"a final comma in a list":  `{"metadata":{"finalizers":["a",]}}`,
		"a first comma in a list":  `{"metadata":{"finalizers":[,"a"]}}`,
		"no colon":                 `{"kind" "a"}`,
		"no name":                  `{:"a"}`,
		"unknown":                  `{"bogus":1}`,
		"unknown in an address":    `{"subsets":[{"addresses":[{"ip":"10.0.0.1","zone":"a"}]}]}`,
		"another case":             `{"Kind":"a"}`,
		"twice":                    `{"kind":"a","kind":"a"}`,
		"twice with null":          `{"kind":null,"kind":"a"}`,
		"twice, once escaped":      `{"kind":"a","\u006bind":"a"}`,
		"a label twice":            `{"metadata":{"labels":{"a":"b","\u0061":"c"}}}`,
		"a number for a string":    `{"kind":1}`,
		"a string for an object":   `{"metadata":"a"}`,
		"an object for a list":     `{"subsets":{}}`,
		"a list for a map":         `{"metadata":{"labels":[]}}`,
		"a string for a number":    `{"metadata":{"generation":"1"}}`,
		"a string for a bool":      `{"metadata":{"ownerReferences":[{"controller":"true"}]}}`,
		"a fraction":               `{"metadata":{"generation":1.0}}`,
		"an exponent":              `{"metadata":{"generation":1e2}}`,
		"a leading zero":           `{"metadata":{"generation":01}}`,
		"a plus":                   `{"metadata":{"generation":+1}}`,
		"a minus alone":            `{"metadata":{"generation":-}}`,
		"too large for 32 bits":    `{"subsets":[{"ports":[{"port":2147483648}]}]}`,
		"too large for 64 bits":    `{"metadata":{"generation":9223372036854775808}}`,
		"almost null":              `{"metadata":nul}`,
		"more than null":           `{"metadata":nulls}`,
		"no time":                  `{"metadata":{"creationTimestamp":"yesterday"}}`,
		"a control character":      "{\"kind\":\"\n\"}",
		"not UTF-8":                "{\"kind\":\"\xff\"}",
		"not UTF-8 beside escapes": "{\"kind\":\"\\n\xff\"}",
		"an unknown escape":        `{"kind":"\x"}`,
		"a short escape":           `{"kind":"\u00e"}`,
		"no digits":                `{"kind":"\u+0e9"}`,
		"half a surrogate pair":    `{"kind":"\ud83d"}`,
		"the second half alone":    `{"kind":"\ude00"}`,
		"two first halves":         `{"kind":"\ud83d\ud83d"}`,
		"FieldsV1 of a list":       `{"metadata":{"managedFields":[{"fieldsV1":[]}]}}`,
		"FieldsV1 of numbers":      `{"metadata":{"managedFields":[{"fieldsV1":{"a":1}}]}}`,
		"FieldsV1 very deep":       `{"metadata":{"managedFields":[{"fieldsV1":` + strings.Repeat(`{"a":`, 1e6) + `{}` + strings.Repeat(`}`, 1e6) + `}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got := &corev1.Endpoints{}
			if decodeJSON([]byte(data), got) {
				t.Errorf("decoded: %.200s", data)
			}
			if diff := cmp.Diff(&corev1.Endpoints{}, got); diff != "" {
				t.Errorf("something is left in the object (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzDecodeJSON holds the decoder to that of Kubernetes: what it takes, the other takes
// without a fault and to the same object.
func FuzzDecodeJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) { compareWithKubernetes(t, data) })
}

func compareWithKubernetes(t *testing.T, data []byte) {
	t.Helper()
	var got, want corev1.Endpoints
	given := bytes.Clone(data)
	if !decodeJSON(given, &got) {
		return
	}
	for i := range given {
		given[i] = '#' // the object must not share the bytes
	}
	if faults, err := kjson.UnmarshalStrict(data, &want); err != nil || len(faults) > 0 {
		t.Fatalf("%q was taken, but Kubernetes finds %v, %v", data, faults, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q (-Kubernetes +ours):\n%s", data, cmp.Diff(want, got))
	}
}

// Whatever is in the object, a field that Kubernetes adds included, it is encoded as
// encoding/json does, and decoded again.
func TestEncodeJSONOfRandomObjects(t *testing.T) {
	filler := randfill.NewWithSeed(1).NilChance(.3).NumElements(0, 4).Funcs(
		func(fields *metav1.FieldsV1, c randfill.Continue) {
			fields.SetRawString([]string{
				`{}`, `{"f:metadata":{"f:labels":{".":{},"k:{\"uid\":\"1\"}":{}}}}`, `{ "a":null }`, `{"<&":{}}`, "{\"\u2028\":{}}", `null`,
			}[c.Intn(6)])
		},
	)
	for range 3000 {
		obj := &corev1.Endpoints{}
		filler.Fill(obj)
		encoded := compareWithStandard(t, obj)
		if !decodeJSON(encoded, &corev1.Endpoints{}) {
			t.Errorf("not decoded again: %s", encoded)
		}
	}
}

// Strings and FieldsV1 that come as protobuf may be any bytes.
func FuzzEncodeJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, protobuf []byte) {
		obj := &corev1.Endpoints{}
		if obj.Unmarshal(protobuf) == nil {
			compareWithStandard(t, obj)
		}
	})
}

func TestEncodeJSON(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	one := int64(1)
	for name, obj := range map[string]*corev1.Endpoints{
		"empty":            {},
		"every byte":       {ObjectMeta: metav1.ObjectMeta{Name: string(every)}},
		"HTML":             {ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"<a>": "&", "b": "\u2028\u2029"}}},
		"not UTF-8":        {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"\xff": "a\xc3", "\xfe": "\xed\xa0\x80"}}},
		"beyond ASCII":     {ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"é", "日本", "😀"}}},
		"empty lists":      {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}, Finalizers: []string{}}, Subsets: []corev1.EndpointSubset{}},
		"zero times":       {ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}, ManagedFields: []metav1.ManagedFieldsEntry{{Time: &metav1.Time{}}}}},
		"the year 12345":   {ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Date(12345, 1, 2, 3, 4, 5, 6, metav1.Now().Location())}},
		"numbers":          {ObjectMeta: metav1.ObjectMeta{Generation: -1, DeletionGracePeriodSeconds: &one}, Subsets: []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: -1}, {}}}}},
		"absent FieldsV1":  {ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: &metav1.FieldsV1{}}, {}}}},
		"FieldsV1, spaced": {ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1(" {\"a\" :\n{} }\t")}}}},
		"FieldsV1, no set": {ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1(`[1,"<"]`)}}}},
		"FieldsV1, broken": {ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1(`{"a"`)}, {FieldsV1: metav1.NewFieldsV1(`{}`)}}}},
		"FieldsV1, twice":  {ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1(`{}{}`)}}}},
	} {
		t.Run(name, func(t *testing.T) { compareWithStandard(t, obj) })
	}
}

// compareWithStandard returns the object's JSON, nil where there is none.
func compareWithStandard(t *testing.T, obj *corev1.Endpoints) []byte {
	t.Helper()
	got, err := encodeJSON(obj)
	want, wantErr := json.Marshal(obj)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%v: got %v, encoding/json says %v", obj, err, wantErr)
	}
	if err != nil {
		return nil
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	return got
}

// However little JSON an element takes, decoding takes not much more memory than the decoder
// of Kubernetes does, besides the copy of the JSON and of what is escaped in it. (The race
// detector makes slices grow in larger steps.)
func TestMemoryForDecodingIsBounded(t *testing.T) {
	const size = 256 << 10
	for name, parts := range map[string][3]string{
		"addresses":     {`{"subsets":[{"addresses":[{}`, `,{}`, `]}]}`},
		"node names":    {`{"subsets":[{"addresses":[{"nodeName":""}`, `,{"nodeName":""}`, `]}]}`},
		"references":    {`{"subsets":[{"addresses":[{"targetRef":{}}`, `,{"targetRef":{}}`, `]}]}`},
		"lists of one":  {`{"subsets":[{"ports":[{}]}`, `,{"ports":[{}]}`, `]}`},
		"null subsets":  {`{"subsets":[null`, `,null`, `]}`},
		"managedFields": {`{"metadata":{"managedFields":[{}`, `,{}`, `]}}`},
		"escapes":       {`{"kind":"`, `\n`, `"}`},
	} {
		data := []byte(parts[0] + strings.Repeat(parts[1], size/len(parts[1])) + parts[2])
		got := allocated(func() {
			if !decodeJSON(data, &corev1.Endpoints{}) {
				t.Errorf("%s: refused", name)
			}
		})
		want := allocated(func() { _ = kjson.UnmarshalCaseSensitivePreserveInts(data, &corev1.Endpoints{}) })
		if got > want*3/2+2*size {
			t.Errorf("%s: %d bytes, Kubernetes takes %d", name, got, want)
		}
	}
}

// The room for a list is foreseen by its first element, which may be much longer than the
// others.
func TestMemoryForEncodingIsBounded(t *testing.T) {
	finalizers := make([]string, 1000)
	finalizers[0] = strings.Repeat("a", 100<<10)
	obj := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Finalizers: finalizers}}
	got := allocated(func() { _, _ = encodeJSON(obj) })
	if want := uint64(2 << 20); got > want {
		t.Errorf("%d bytes for 100 KiB of JSON, want at most %d", got, want)
	}
}

func TestAddressesAreDecodedAndEncodedInFewAllocations(t *testing.T) {
	data, obj := body(20000), &corev1.Endpoints{}
	decoding := testing.AllocsPerRun(5, func() {
		if *obj = (corev1.Endpoints{}); !decodeJSON(data, obj) {
			t.Error("refused")
		}
	})
	encoding := testing.AllocsPerRun(5, func() {
		if _, err := encodeJSON(obj); err != nil {
			t.Error(err)
		}
	})
	if decoding > 100 || encoding > 10 {
		t.Errorf("%v allocations to decode 20,000 addresses, %v to encode them", decoding, encoding)
	}
}

func allocated(run func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
