package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/storage"
)

const ignoreBody = `{"kind":"DeleteOptions","apiVersion":"v1","ignoreStoreReadErrorWithClusterBreakingPotential":true%s}`

// What writes to an object that cannot be read is refused, and changes nothing.
func TestWritesToAnUnreadableObject(t *testing.T) {
	ns := newNamespace(t, shared)
	key, path := endpointsKey(ns, "a"), endpointsPath(ns, "a")
	revision := store(t, key, []byte("{"))
	for _, query := range []string{"", "?dryRun=All"} {
		checkCode(t, request(t, http.MethodPost, endpointsPath(ns, "")+query, string(body("a"))), http.StatusConflict, "AlreadyExists")
		checkReadError(t, request(t, http.MethodPut, path+query, string(body("a"))), key)
		for _, patch := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
			checkReadError(t, request(t, http.MethodPatch, path+query, `{"metadata":{"labels":{"x":"y"}}}`, "Content-Type", string(patch)), key)
		}
		checkReadError(t, request(t, http.MethodPatch, path+query, `[]`, "Content-Type", string(types.JSONPatchType)), key)
		manager := "?fieldManager=m&force=true&" + strings.TrimPrefix(query, "?")
		checkReadError(t, request(t, http.MethodPatch, path+manager, `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a"}}`, "Content-Type", string(types.ApplyYAMLPatchType)), key)
		checkReadError(t, request(t, http.MethodDelete, path+query, ""), key)
	}
	got, err := shared.Storage.Get(t.Context(), key, storage.GetOptions{})
	if err != nil || got.KV == nil || got.KV.ModRevision != revision {
		t.Errorf("stored is %v, %v, want what it was", got.KV, err)
	}
}

// Only the administrator's option deletes what cannot be read, and nothing else.
func TestDeletingAnUnreadableObject(t *testing.T) {
	ns := newNamespace(t, shared)
	key, path := endpointsKey(ns, "a"), endpointsPath(ns, "a")
	store(t, key, []byte("{"))
	good := endpointsPath(ns, "good")
	checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), string(body("good"))), http.StatusCreated, "")
	for name, tc := range map[string]struct {
		path, body string
		code       int
		text       string
	}{
		"without it":             {path, "", 500, "StorageReadError"},
		"false":                  {path + "?ignoreStoreReadErrorWithClusterBreakingPotential=false", "", 500, "StorageReadError"},
		"with a precondition":    {path, fmt.Sprintf(ignoreBody, `,"preconditions":{"uid":"u"}`), 422, "cannot be set together with .preconditions"},
		"with a grace period":    {path + ignoring + "&gracePeriodSeconds=1", "", 422, "cannot be set together with .gracePeriodSeconds"},
		"with a policy":          {path + ignoring + "&propagationPolicy=Background", "", 422, "cannot be set together with .propagationPolicy"},
		"with orphans":           {path + ignoring + "&orphanDependents=true", "", 422, "cannot be set together with .orphanDependents"},
		"a dry run":              {path + ignoring + "&dryRun=All", "", 200, "Success"},
		"a dry run, by the body": {path, fmt.Sprintf(ignoreBody, `,"dryRun":["All"]`), 200, "Success"},
		"of no object":           {endpointsPath(ns, "none") + ignoring, "", 404, "NotFound"},
		"of a readable object":   {good + ignoring, "", 422, "only for objects that cannot be read"},
		"of a collection":        {endpointsPath(ns, "") + ignoring, "", 422, "cannot be set for a collection"},
	} {
		t.Run(name, func(t *testing.T) {
			checkCode(t, request(t, http.MethodDelete, tc.path, tc.body), tc.code, tc.text)
			checkReadError(t, request(t, http.MethodGet, path, ""), key)
			checkCode(t, request(t, http.MethodGet, good, ""), http.StatusOK, "")
		})
	}
	a := request(t, http.MethodDelete, path, fmt.Sprintf(ignoreBody, ""))
	checkCode(t, a, http.StatusOK, "")
	status := decode[*metav1.Status](t, a)
	if want := (&metav1.StatusDetails{Name: "a", Kind: "endpoints"}); !cmp.Equal(status.Details, want) {
		t.Errorf("details %+v, want %+v", status.Details, want)
	}
	checkCode(t, request(t, http.MethodGet, path, ""), http.StatusNotFound, "")
	checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), string(body("a"))), http.StatusCreated, "")
}

// Deleting what cannot be read takes a permission of its own.
func TestDeletingAnUnreadableObjectTakesPermission(t *testing.T) {
	ns := newNamespace(t, shared)
	key, path := endpointsKey(ns, "a"), endpointsPath(ns, "a")
	store(t, key, []byte("{"))
	checkReadError(t, request(t, http.MethodDelete, path, "", "X-Auth-Token", carefulToken), key)
	checkCode(t, request(t, http.MethodDelete, path+ignoring, "", "X-Auth-Token", carefulToken), http.StatusForbidden, `cannot unsafe-delete-ignore-read-errors resource`)
	checkReadError(t, request(t, http.MethodGet, path, ""), key)
}

// A collection is deleted without what cannot be read, with a warning.
func TestDeletingACollectionWithAnUnreadableObject(t *testing.T) {
	ns := newNamespace(t, shared)
	for _, name := range []string{"a", "c"} {
		checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), string(body(name))), http.StatusCreated, "")
	}
	key := endpointsKey(ns, "b")
	store(t, key, []byte("{"))
	a := request(t, http.MethodDelete, endpointsPath(ns, ""), "")
	if got := listedNames(t, a); !cmp.Equal(got, []string{"a", "c"}) {
		t.Errorf("deleted %q", got)
	}
	checkWarned(t, a, key)
	checkReadError(t, request(t, http.MethodGet, endpointsPath(ns, "b"), ""), key)
	if got := listedNames(t, request(t, http.MethodGet, endpointsPath(ns, ""), "")); len(got) != 0 {
		t.Errorf("left are %q", got)
	}
}

// A namespace goes with all that is in it, be it readable or not.
func TestDeletingANamespaceWithUnreadableObjects(t *testing.T) {
	ns := newNamespace(t, shared)
	checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), string(body("z"))), http.StatusCreated, "")
	keys := []string{endpointsKey(ns, "a"), endpointsKey(ns, "b/c"), endpointsKey(ns, "d")}
	for i, text := range []string{"{", "null", "\xff"} {
		store(t, keys[i], []byte(text))
	}
	checkCode(t, request(t, http.MethodDelete, "/api/v1/namespaces/"+ns, ""), http.StatusOK, "")
	eventually(t, "the namespace is gone", func() bool {
		return request(t, http.MethodGet, "/api/v1/namespaces/"+ns, "").code == http.StatusNotFound
	})
	left, err := shared.Storage.List(t.Context(), endpointsKey(ns, ""), storage.ListOptions{})
	if err != nil || len(left.KVs) > 0 {
		t.Errorf("left are %v, %v", left.KVs, err)
	}
}

// A namespace that cannot be read takes no new objects; the other namespaces do not notice.
func TestUnreadableNamespace(t *testing.T) {
	for what, text := range map[string]string{
		"garbage": "\x00garbage", "null": "null", "protobuf": "k8s\x00\n\x0f", "another's": `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"other"}}`,
		"a bad condition": `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"%s","uid":"u"},"status":{"conditions":[{"lastTransitionTime":"never"}]}}`,
	} {
		t.Run(what, func(t *testing.T) {
			broken, dying := newNamespace(t, shared), newNamespace(t, shared)
			key, path := "/registry/namespaces/"+broken, "/api/v1/namespaces/"+broken
			for _, ns := range []string{broken, dying} {
				checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), string(body("a"))), http.StatusCreated, "")
			}
			store(t, key, []byte(strings.ReplaceAll(text, "%s", broken)))
			checkReadError(t, request(t, http.MethodPost, endpointsPath(broken, ""), string(body("b"))), key)
			checkReadError(t, request(t, http.MethodGet, path, ""), key)
			checkReadError(t, request(t, http.MethodDelete, path, ""), key)
			checkCode(t, request(t, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"`+broken+`"}}`), http.StatusConflict, "AlreadyExists")
			checkCode(t, request(t, http.MethodGet, endpointsPath(broken, "a"), ""), http.StatusOK, "")
			checkWarned(t, request(t, http.MethodGet, "/api/v1/namespaces", ""), key)

			checkCode(t, request(t, http.MethodDelete, "/api/v1/namespaces/"+dying, ""), http.StatusOK, "")
			eventually(t, "another namespace is gone", func() bool {
				return request(t, http.MethodGet, "/api/v1/namespaces/"+dying, "").code == http.StatusNotFound
			})
			checkCode(t, request(t, http.MethodGet, "/readyz", ""), http.StatusOK, "ok")

			// What is in it waits for a namespace of that name.
			checkCode(t, request(t, http.MethodDelete, path+ignoring, ""), http.StatusOK, "")
			checkCode(t, request(t, http.MethodGet, path, ""), http.StatusNotFound, "")
			checkCode(t, request(t, http.MethodPost, endpointsPath(broken, ""), string(body("b"))), http.StatusNotFound, "")
			checkCode(t, request(t, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"`+broken+`"}}`), http.StatusCreated, "")
			a := request(t, http.MethodGet, endpointsPath(broken, ""), "")
			if got := listedNames(t, a); !cmp.Equal(got, []string{"a"}) {
				t.Errorf("listed %q", got)
			}
			checkCode(t, request(t, http.MethodPost, endpointsPath(broken, ""), string(body("b"))), http.StatusCreated, "")
		})
	}
}

// Each version of a value that cannot be read is logged and counted once; a gauge tells how
// many there are.
func TestUnreadableValuesAreReported(t *testing.T) {
	ns := newNamespace(t, shared)
	key := endpointsKey(ns, "a")
	errors, now := metricOf(t, "apiserver_storage_decode_errors_total"), metricOf(t, "berth_unreadable_objects")
	first := store(t, key, []byte("{"))
	second := store(t, key, []byte("["))
	for range 3 {
		checkReadError(t, request(t, http.MethodGet, endpointsPath(ns, "a"), ""), key)
		request(t, http.MethodGet, endpointsPath(ns, "")+fmt.Sprintf("?watch=1&timeoutSeconds=1&resourceVersion=%d", first-1), "")
	}
	if lines := logs.lines(key + " cannot be read"); len(lines) != 2 || !strings.Contains(lines[1], fmt.Sprintf("revision %d", second)) {
		t.Errorf("logged %q, want a line for each of two versions", lines)
	}
	if got := metricOf(t, "apiserver_storage_decode_errors_total"); got != errors+2 {
		t.Errorf("%v errors after %v", got, errors)
	}
	if got := metricOf(t, "berth_unreadable_objects"); got != now+1 {
		t.Errorf("%v unreadable objects after %v", got, now)
	}
	checkCode(t, request(t, http.MethodDelete, endpointsPath(ns, "a")+ignoring, ""), http.StatusOK, "")
	eventually(t, "the gauge goes back", func() bool { return metricOf(t, "berth_unreadable_objects") == now })
}

// metricOf is the value of a metric of endpoints.
func metricOf(t *testing.T, name string) float64 {
	t.Helper()
	a := request(t, http.MethodGet, "/metrics", "")
	checkCode(t, a, http.StatusOK, name)
	_, rest, _ := strings.Cut(string(a.body), "\n"+name+`{group="",resource="endpoints"} `)
	line, _, _ := strings.Cut(rest, "\n")
	value, err := strconv.ParseFloat(line, 64)
	if err != nil {
		t.Fatalf("%s of endpoints: %v", name, err)
	}
	return value
}

// What a write accepts, it can read again: sets of fields, which are stored as they came, are
// refused where they are not UTF-8.
func TestWritesThatCouldNotBeReadAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, set, refusal string }{
		{"no UTF-8", `{"f:metadata":{"f:labels":{"f:` + "\xff" + `":{}}}}`, "not UTF-8"},
		{"cut UTF-8", `{"f:` + "\xe2\x82" + `":{}}`, "not UTF-8"},
		{"surrogates in UTF-8", `{"f:` + "\xed\xa0\x80" + `":{}}`, "not UTF-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := newNamespace(t, shared)
			object := `{"metadata":{"name":"a","managedFields":[{"manager":"m","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":` + tc.set + `}]}}`
			checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), object), http.StatusUnprocessableEntity, tc.refusal)
			checkCode(t, request(t, http.MethodPut, endpointsPath(ns, "a"), object), http.StatusUnprocessableEntity, tc.refusal)
			checkCode(t, request(t, http.MethodPost, endpointsPath(ns, ""), string(body("a"))), http.StatusCreated, "")
			checkCode(t, request(t, http.MethodPut, endpointsPath(ns, "a"), object), http.StatusUnprocessableEntity, tc.refusal)
			checkCode(t, request(t, http.MethodGet, endpointsPath(ns, "a"), ""), http.StatusOK, "")
		})
	}
}
