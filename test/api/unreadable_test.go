package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/storage"
)

// ignoring deletes what cannot be read.
const ignoring = "?ignoreStoreReadErrorWithClusterBreakingPotential=true"

// value is what the server stores for Endpoints of one address, with more in its metadata.
func value(namespace, name, more string) string {
	return fmt.Sprintf(`{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"uid":"u","creationTimestamp":"2026-01-02T03:04:05Z"%s},`+
		`"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80,"protocol":"TCP"}]}]}`, name, namespace, more)
}

// unreadable are values that are no Endpoints of that name, by what is wrong with them.
func unreadable(namespace, name string) map[string][]byte {
	good := value(namespace, name, "")
	long := value(namespace, name, `,"annotations":{"a":"`+strings.Repeat("abcdefgh", 8<<10)+`"}`)
	fields := func(set string) string {
		return value(namespace, name, `,"managedFields":[{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":`+set+`}]`)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // the options are valid
	}
	zstdValue, s2Value := encoder.EncodeAll([]byte(long), nil), s2.Encode(nil, []byte(long))
	values := map[string][]byte{
		"flipped bit in zstd": flip(zstdValue, len(zstdValue)/2),
		"flipped zstd header": flip(zstdValue, 5),
		"truncated zstd":      zstdValue[:len(zstdValue)-9],
		"zstd of garbage":     encoder.EncodeAll([]byte("garbage"), nil),
		"flipped s2 length":   flip(s2Value, 1),
		"truncated s2":        s2Value[:len(s2Value)-9],
		"s2 of garbage":       s2.Encode(nil, bytes.Repeat([]byte("garbage "), 1000)),
	}
	for what, text := range map[string]string{
		"empty":                         "",
		"garbage":                       "\x00\x01\x02\xff\xfe",
		"text":                          "hello",
		"gzip":                          "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff",
		"lz4":                           "\x04\x22\x4d\x18" + good,
		"protobuf":                      "k8s\x00\n\x0f\n\x02v1\x12\tEndpoints",
		"yaml":                          "kind: Endpoints\napiVersion: v1\n",
		"truncated":                     good[:len(good)-1],
		"truncated in the metadata":     good[:60],
		"more behind it":                good + "}",
		"twice":                         good + good,
		"null":                          "null",
		"true":                          "true",
		"a number":                      "17",
		"a string":                      `"Endpoints"`,
		"an array":                      "[]",
		"an array of it":                "[" + good + "]",
		"an empty object":               "{}",
		"another program's":             `{"Name":"` + name + `","Addrs":["10.0.0.1:80"],"TTL":30}`,
		"another kind":                  strings.Replace(good, `"Endpoints"`, `"ConfigMap"`, 1),
		"its list":                      `{"kind":"EndpointsList","apiVersion":"v1","metadata":{},"items":[` + good + `]}`,
		"a newer version":               strings.Replace(good, `"v1"`, `"v2"`, 1),
		"another group":                 strings.Replace(good, `"v1"`, `"discovery.k8s.io/v1"`, 1),
		"a kind alone":                  strings.Replace(good, `"apiVersion":"v1",`, "", 1),
		"a second kind":                 strings.Replace(good, `,"subsets"`, `,"kind":"ConfigMap","subsets"`, 1),
		"another name":                  value(namespace, "other", ""),
		"another namespace":             value("other", name, ""),
		"no name":                       strings.Replace(good, `"name":"`+name+`",`, "", 1),
		"no namespace":                  strings.Replace(good, `"namespace":"`+namespace+`",`, "", 1),
		"a second name":                 strings.Replace(good, `,"uid"`, `,"name":"other","uid"`, 1),
		"no metadata":                   `{"kind":"Endpoints","apiVersion":"v1","subsets":[]}`,
		"null metadata":                 `{"kind":"Endpoints","apiVersion":"v1","metadata":null}`,
		"metadata of another type":      `{"kind":"Endpoints","apiVersion":"v1","metadata":"a"}`,
		"a name of another type":        strings.Replace(good, `"`+name+`"`, "1", 1),
		"subsets of another type":       strings.Replace(good, `"subsets":[`, `"subsets":{"a":[`, 1) + "}",
		"a port of another type":        strings.Replace(good, `"port":80`, `"port":"80"`, 1),
		"a port too large":              strings.Replace(good, `"port":80`, `"port":80000000000`, 1),
		"a port with a fraction":        strings.Replace(good, `"port":80`, `"port":80.5`, 1),
		"an address of another type":    strings.Replace(good, `"10.0.0.1"`, `["10.0.0.1"]`, 1),
		"labels of another type":        value(namespace, name, `,"labels":["a"]`),
		"a label of another type":       value(namespace, name, `,"labels":{"a":1}`),
		"a bad time":                    strings.Replace(good, "2026-01-02", "yesterday", 1),
		"a flipped bit in a name":       strings.Replace(good, `"subsets"`, "\"subsets\x02", 1),
		"a flipped bit in a brace":      strings.Replace(good, "[{", "[\x7b\x7b", 1),
		"invalid UTF-8":                 value(namespace, name, ",\"annotations\":{\"a\":\"\xff\xfe\"}"),
		"UTF-16":                        "\xff\xfe{\x00}\x00",
		"a byte order mark":             "\ufeff" + good,
		"deep arrays":                   strings.Repeat("[", 100_000),
		"deep unknown fields":           value(namespace, name, `,"x":`+strings.Repeat(`{"a":`, 20_000)+"1"+strings.Repeat("}", 20_000)),
		"deep fields":                   fields(strings.Repeat(`{"f:a":`, 9_900) + "{}" + strings.Repeat("}", 9_900)),
		"a uid that ends with a quote":  strings.Replace(good, `"uid":"u"`, `"uid":"u\"`, 1),
		"a resourceVersion as a number": value(namespace, name, `,"resourceVersion":5`),
	} {
		values[what] = []byte(text)
	}
	return values
}

// flip returns data with a bit changed in the byte at.
func flip(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 0x40
	return data
}

// store writes a value past the server, whatever is there, and returns its revision.
func store(t testing.TB, key string, value []byte) int64 {
	t.Helper()
	t.Cleanup(func() { forget(key) }) // it would be in the warnings of other tests' lists
	return storeIn(t, shared.Storage, key, value)
}

func storeIn(t testing.TB, in storage.Interface, key string, value []byte) int64 {
	t.Helper()
	got, err := in.Get(t.Context(), key, storage.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	opts := storage.PutOptions{}
	if got.KV != nil {
		opts.Expect = got.KV.ModRevision
	}
	response, err := in.Put(t.Context(), key, value, opts)
	if err != nil || !response.Succeeded {
		t.Fatalf("storing %s: %v, %v", key, response, err)
	}
	return response.Revision
}

// forget deletes a key past the server, if it is there.
func forget(key string) {
	ctx := context.Background() // a test's own has ended when its cleanup runs
	if got, err := shared.Storage.Get(ctx, key, storage.GetOptions{}); err == nil && got.KV != nil {
		_, _ = shared.Storage.Delete(ctx, key, storage.DeleteOptions{Expect: got.KV.ModRevision}) // best effort
	}
}

func endpointsKey(namespace, name string) string {
	return "/registry/endpoints/" + namespace + "/" + name
}

func request(t testing.TB, method, path, body string, headers ...string) *answer {
	t.Helper()
	return send(t, shared.Client, newRequest(t, shared, method, path, []byte(body), headers...))
}

// checkReadError wants the answer that names the key and how to delete it.
func checkReadError(t testing.TB, a *answer, key string) {
	t.Helper()
	checkCode(t, a, http.StatusInternalServerError, `"reason":"StorageReadError"`)
	status := decode[*metav1.Status](t, a)
	for _, text := range []string{key + " cannot be read: ", ignoring[1:]} {
		if !strings.Contains(status.Message, text) {
			t.Fatalf("the message %q lacks %q", status.Message, text)
		}
	}
	if len(status.Message) > 1000 || status.Details == nil || len(status.Details.Causes) != 1 || status.Details.Causes[0].Field != key {
		t.Fatalf("a message of %d bytes, details %+v", len(status.Message), status.Details)
	}
}

// checkWarned wants a warning that names each key.
func checkWarned(t testing.TB, a *answer, keys ...string) {
	t.Helper()
	warnings := a.header.Values("Warning")
	if len(warnings) != len(keys) {
		t.Fatalf("warnings %q, want one for each of %q", warnings, keys)
	}
	for i, key := range keys {
		if !strings.HasPrefix(warnings[i], `299 - "`+key+" is left out") {
			t.Errorf("warning %s, want one of %s", warnings[i], key)
		}
	}
}

// listedNames are the names in a list of any form; a list of rows has its objects' metadata.
func listedNames(t testing.TB, a *answer) []string {
	t.Helper()
	checkCode(t, a, http.StatusOK, "")
	if strings.HasPrefix(a.header.Get("Content-Type"), runtime.ContentTypeProtobuf) || strings.HasPrefix(a.header.Get("Content-Type"), runtime.ContentTypeYAML) {
		names := []string{}
		for _, item := range decode[*corev1.EndpointsList](t, a).Items {
			names = append(names, item.Name)
		}
		return names
	}
	var list struct {
		Items []struct{ Metadata metav1.ObjectMeta }
		Rows  []struct {
			Object struct{ Metadata metav1.ObjectMeta }
		}
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	names := []string{}
	for _, item := range list.Items {
		names = append(names, item.Metadata.Name)
	}
	for _, row := range list.Rows {
		names = append(names, row.Object.Metadata.Name)
	}
	return names
}

// Whatever stands under an object's key, the others are served, and it can be deleted.
func TestUnreadableValues(t *testing.T) {
	ns := newNamespace(t, shared)
	for _, name := range []string{"a", "c"} {
		checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), string(body(name))), http.StatusCreated, "")
	}
	key, path := endpointsKey(ns, "b"), endpointsPath(ns, "b")
	values := unreadable(ns, "b")
	if len(values) < 25 {
		t.Fatalf("only %d kinds", len(values))
	}
	for _, what := range slices.Sorted(maps.Keys(values)) {
		t.Run(what, func(t *testing.T) {
			store(t, key, values[what])
			checkReadError(t, request(t, http.MethodGet, path, ""), key)
			for _, version := range []string{"", "?limit=500", "?resourceVersion=0"} {
				a := request(t, http.MethodGet, endpointsPath(ns, "")+version, "")
				if got := listedNames(t, a); !cmp.Equal(got, []string{"a", "c"}) {
					t.Errorf("%s: listed %q", version, got)
				}
				checkWarned(t, a, key)
			}
			a := request(t, http.MethodPost, endpointsPath(ns, ""), string(body("b")))
			checkCode(t, a, http.StatusConflict, `"reason":"AlreadyExists"`)
			checkReadError(t, request(t, http.MethodPut, path, string(body("b"))), key)
			checkReadError(t, request(t, http.MethodDelete, path, ""), key)
			checkCode(t, request(t, http.MethodDelete, path+ignoring, ""), http.StatusOK, `"status":"Success"`)
			checkCode(t, request(t, http.MethodGet, path, ""), http.StatusNotFound, "")
		})
	}
}

// Values that other programs write in other words are read.
func TestForeignValuesAreRead(t *testing.T) {
	ns := newNamespace(t, shared)
	key, good := endpointsKey(ns, "b"), value(ns, "b", "")
	for what, value := range map[string]string{
		"as the server writes it":  good,
		"without a kind":           strings.Replace(good, `"kind":"Endpoints","apiVersion":"v1",`, "", 1),
		"unknown fields":           strings.Replace(good, `"subsets"`, `"new":{"a":[1]},"subsets"`, 1),
		"unknown metadata":         value(ns, "b", `,"new":{"a":[1]}`),
		"the same name twice":      strings.Replace(good, `,"uid"`, `,"name":"b","uid"`, 1),
		"a resourceVersion first":  strings.Replace(good, `"name"`, `"resourceVersion":"5","name"`, 1),
		"nulls":                    value(ns, "b", `,"labels":null,"managedFields":null`),
		"spaces":                   " " + strings.ReplaceAll(good, ":{", " :\n\t{ ") + "\n",
		"a quote in the uid":       strings.Replace(good, `"uid":"u"`, `"uid":"u\"u"`, 1),
		"escapes":                  strings.Replace(good, `"b"`, `"\u0062"`, 1),
		"fields that are no field": value(ns, "b", `,"managedFields":[{"manager":"m","operation":"Update","fieldsV1":7}]`),
	} {
		t.Run(what, func(t *testing.T) {
			revision := store(t, key, []byte(value))
			got := decode[*corev1.Endpoints](t, request(t, http.MethodGet, endpointsPath(ns, "b"), ""))
			if got.Name != "b" || got.ResourceVersion != fmt.Sprint(revision) || len(got.Subsets) != 1 {
				t.Errorf("got %+v, want revision %d", got, revision)
			}
			a := request(t, http.MethodGet, endpointsPath(ns, ""), "")
			if names := listedNames(t, a); !cmp.Equal(names, []string{"b"}) {
				t.Errorf("listed %q", names)
			}
			checkWarned(t, a)
			decode[*corev1.Endpoints](t, request(t, http.MethodGet, endpointsPath(ns, "b"), "", "Accept", runtime.ContentTypeProtobuf))
			checkCode(t, request(t, http.MethodDelete, endpointsPath(ns, "b"), ""), http.StatusOK, "")
		})
	}
}

// Lists of every form go on without what cannot be read, and name it.
func TestListsWithoutUnreadableValues(t *testing.T) {
	ns := newNamespace(t, shared)
	for _, name := range []string{"a", "c", "e"} {
		labelled := fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"x":"y"}}}`, name)
		checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), labelled), http.StatusCreated, "")
	}
	keyB, keyD := endpointsKey(ns, "b"), endpointsKey(ns, "d")
	store(t, keyB, []byte("{"))
	revision := store(t, keyD, []byte("[]"))
	const table, metadata = "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
	for _, tc := range []struct {
		query, accept string
		want          []string
		warned        []string
	}{
		{"", runtime.ContentTypeJSON, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{"", runtime.ContentTypeYAML, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{"", runtime.ContentTypeProtobuf, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{"", table, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{"", metadata, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{"?pretty=true", runtime.ContentTypeJSON, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{"?labelSelector=x=y", runtime.ContentTypeJSON, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{"?labelSelector=!x", runtime.ContentTypeJSON, []string{}, []string{keyB, keyD}},
		{"?fieldSelector=metadata.name=b", runtime.ContentTypeJSON, []string{}, []string{keyB}},
		{"?fieldSelector=metadata.name=a", runtime.ContentTypeJSON, []string{"a"}, nil},
		{"?fieldSelector=metadata.name!=b", runtime.ContentTypeJSON, []string{"a", "c", "e"}, []string{keyD}},
		{"?limit=1", runtime.ContentTypeJSON, []string{"a"}, nil}, // the next page tells of what follows
		{"?limit=2", runtime.ContentTypeJSON, []string{"a", "c"}, []string{keyB}},
		{"?limit=3", runtime.ContentTypeJSON, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{fmt.Sprintf("?resourceVersionMatch=Exact&resourceVersion=%d", revision), runtime.ContentTypeProtobuf, []string{"a", "c", "e"}, []string{keyB, keyD}},
		{fmt.Sprintf("?resourceVersionMatch=Exact&resourceVersion=%d", revision-1), runtime.ContentTypeJSON, []string{"a", "c", "e"}, []string{keyB}},
	} {
		for _, encoding := range []string{"identity", "gzip"} {
			a := request(t, http.MethodGet, endpointsPath(ns, "")+tc.query, "", "Accept", tc.accept, "Accept-Encoding", encoding)
			if got := listedNames(t, a); !cmp.Equal(got, tc.want) {
				t.Errorf("%s as %s: listed %q, want %q", tc.query, tc.accept, got, tc.want)
			}
			checkWarned(t, a, tc.warned...)
		}
	}
	checkPages(t, ns, []string{"a", "c", "e"})
}

// checkPages wants the names on pages of one.
func checkPages(t *testing.T, ns string, want []string) {
	t.Helper()
	var got []string
	for token := ""; ; {
		a := request(t, http.MethodGet, endpointsPath(ns, "")+"?limit=1&continue="+token, "")
		list := decode[*corev1.EndpointsList](t, a)
		for i := range list.Items {
			got = append(got, list.Items[i].Name)
		}
		if token = list.Continue; token == "" || len(got) > len(want) {
			break
		}
	}
	if !cmp.Equal(got, want) {
		t.Errorf("pages of %q, want %q", got, want)
	}
}

// However many values cannot be read, the warnings are few.
func TestManyUnreadableValues(t *testing.T) {
	ns := newNamespace(t, shared)
	for i := range 40 {
		store(t, endpointsKey(ns, fmt.Sprintf("%s-%02d", strings.Repeat("n", 200), i)), []byte("{"))
	}
	a := request(t, http.MethodGet, endpointsPath(ns, ""), "")
	warnings := a.header.Values("Warning")
	if got := listedNames(t, a); len(got) != 0 || len(warnings) != 11 || !strings.Contains(warnings[10], "30 more objects are left out") {
		t.Errorf("listed %q with %d warnings %q", got, len(warnings), warnings)
	}
}
