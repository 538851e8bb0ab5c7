package clients

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// warnings collects the warnings that a client gets.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

// take returns what has come since the last call.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := w.texts
	w.texts = nil
	return texts
}

// send is a write of a body as it is.
type send func(ctx context.Context, body, fieldValidation string) error

// writes are the ways to write the object "object" of the namespace by a body. Each makes
// the object anew where it needs to.
func writes(client *kubernetes.Clientset, namespace string) map[string]send {
	request := func(r *rest.Request, body, fieldValidation string) *rest.Request {
		return r.Namespace(namespace).Resource("endpoints").Param("fieldValidation", fieldValidation).Body([]byte(body))
	}
	api := client.CoreV1().RESTClient()
	patch := func(patchType types.PatchType) send {
		return func(ctx context.Context, body, fieldValidation string) error {
			r := request(api.Patch(patchType).Name("object"), body, fieldValidation)
			if patchType == types.ApplyPatchType {
				r = r.Param("fieldManager", "test")
			}
			return r.Do(ctx).Error()
		}
	}
	return map[string]send{
		"create": func(ctx context.Context, body, fieldValidation string) error {
			body = strings.Replace(body, `"name":"object"`, `"generateName":"object-"`, 1)
			r := request(api.Post(), body, fieldValidation).SetHeader("Content-Type", "application/json")
			return r.Do(ctx).Error()
		},
		"update": func(ctx context.Context, body, fieldValidation string) error {
			r := request(api.Put().Name("object"), body, fieldValidation).SetHeader("Content-Type", "application/json")
			return r.Do(ctx).Error()
		},
		"merge patch":     patch(types.MergePatchType),
		"strategic patch": patch(types.StrategicMergePatchType),
	}
}

// test/e2e/apimachinery/field_validation.go: “FieldValidation should detect unknown and
// duplicate fields of a typed object”, “… should detect unknown metadata fields of a typed
// object”.
func TestFieldValidation(t *testing.T) {
	t.Parallel()
	config := shared.config(t)
	warned := &warnings{}
	config.WarningHandler = warned
	client := newClient(t, config)
	namespace := makeNamespace(t, client)
	endpoints := client.CoreV1().Endpoints(namespace)
	mustCreate(t, endpoints, newEndpoints("object"))
	const (
		good       = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"object"},"subsets":[]}`
		unknown    = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"object","bogus":1},"unknown":1,"subsets":[]}`
		duplicate  = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"object"},"subsets":[],"subsets":[]}`
		wrongCase  = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"object"},"Subsets":[]}`
		deepInside = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"object"},"subsets":[{"addresses":[{"ip":"10.0.0.1","port":1}]}]}`
	)
	for name, write := range writes(client, namespace) {
		for _, test := range []struct {
			what, body string
			want       []string // faults
		}{
			{"a good body", good, nil},
			{"unknown fields", unknown, []string{`unknown field "metadata.bogus"`, `unknown field "unknown"`}},
			{"a duplicate field", duplicate, []string{`duplicate field "subsets"`}},
			{"a field in the wrong case", wrongCase, []string{`unknown field "Subsets"`}},
			{"an unknown field deep inside", deepInside, []string{`unknown field "subsets[0].addresses[0].port"`}},
		} {
			what := name + " with " + test.what
			warned.take()
			for _, mode := range []string{"", metav1.FieldValidationWarn} {
				if err := write(t.Context(), test.body, mode); err != nil {
					t.Errorf("%s, fieldValidation=%q: %v", what, mode, err)
				}
				if diff := cmp.Diff(test.want, warned.take()); diff != "" {
					t.Errorf("%s, fieldValidation=%q: warnings (-want +got):\n%s", what, mode, diff)
				}
			}
			if err := write(t.Context(), test.body, metav1.FieldValidationIgnore); err != nil || len(warned.take()) > 0 {
				t.Errorf("%s, fieldValidation=Ignore: error %v, or warnings", what, err)
			}
			err := write(t.Context(), test.body, metav1.FieldValidationStrict)
			if (err != nil) != (len(test.want) > 0) {
				t.Errorf("%s, fieldValidation=Strict: got error %v, want faults %q", what, err, test.want)
			}
			for _, fault := range test.want {
				if err != nil && !strings.Contains(err.Error(), fault) {
					t.Errorf("%s, fieldValidation=Strict: got error %v, want it to tell %s", what, err, fault)
				}
			}
		}
	}
}

// test/e2e/apimachinery/field_validation.go, the same for apply: what the schema does not
// know is refused in every mode, and a field that is given twice is a matter of the mode.
func TestFieldValidationOfApply(t *testing.T) {
	t.Parallel()
	config := shared.config(t)
	warned := &warnings{}
	config.WarningHandler = warned
	client := newClient(t, config)
	namespace := makeNamespace(t, client)
	apply := func(body, mode string) error {
		return client.CoreV1().RESTClient().Patch(types.ApplyPatchType).Namespace(namespace).Resource("endpoints").Name("object").
			Param("fieldManager", "test").Param("fieldValidation", mode).Body([]byte(body)).Do(t.Context()).Error()
	}
	const head = "apiVersion: v1\nkind: Endpoints\nmetadata:\n  name: object\n"
	for _, mode := range []string{metav1.FieldValidationStrict, metav1.FieldValidationWarn, metav1.FieldValidationIgnore} {
		err := apply(head+"unknown: 1\n", mode)
		if err == nil || !strings.Contains(err.Error(), ".unknown: field not declared in schema") {
			t.Errorf("apply of an unknown field, fieldValidation=%s: got error %v, want that it is not declared", mode, err)
		}
	}
	twice := head + "subsets: []\nsubsets: []\n"
	err := apply(twice, metav1.FieldValidationStrict)
	checkStatus(t, "apply of a field given twice, fieldValidation=Strict", err, 400, metav1.StatusReasonBadRequest)
	if err := apply(twice, metav1.FieldValidationWarn); err != nil || len(warned.take()) != 1 {
		t.Errorf("apply of a field given twice, fieldValidation=Warn: error %v, want none and a warning", err)
	}
	if err := apply(twice, metav1.FieldValidationIgnore); err != nil || len(warned.take()) != 0 {
		t.Errorf("apply of a field given twice, fieldValidation=Ignore: error %v, or a warning", err)
	}
}
