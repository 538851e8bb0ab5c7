package server

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

var fieldValidations = []string{"", metav1.FieldValidationIgnore, metav1.FieldValidationWarn, metav1.FieldValidationStrict}

// Whatever the bytes are, decoding them gives an object or a 400. The object keeps nothing
// of the bytes, and is the same after encoding and decoding it again.
func FuzzDecode(f *testing.F) {
	c := newCodecs(testScheme(f))
	outputs := map[string]output{mediaTypes[0]: c.json, mediaTypes[1]: c.yaml, mediaTypes[2]: c.proto}
	f.Fuzz(func(t *testing.T, data []byte, mediaType, validation uint8) {
		kind := mediaTypes[int(mediaType)%len(mediaTypes)]
		fieldValidation := fieldValidations[int(validation)%len(fieldValidations)]
		obj := &corev1.Endpoints{}
		warnings, err := c.decode(data, kind, obj, decodeAny, fieldValidation)
		if err != nil {
			var status *apierrors.StatusError
			if !errors.As(err, &status) || status.ErrStatus.Code != http.StatusBadRequest || status.ErrStatus.Reason != metav1.StatusReasonBadRequest {
				t.Errorf("got %T %v, want a BadRequest", err, err)
			}
			return
		}
		if fieldValidation == metav1.FieldValidationIgnore && len(warnings) > 0 {
			t.Errorf("warned in spite of Ignore: %q", warnings)
		}
		if kind != runtime.ContentTypeProtobuf && !expressible(obj) {
			t.Skip("a time that RFC 3339 cannot tell")
		}
		obj.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Endpoints"))
		first := encode(t, outputs[kind], obj)
		for i := range data {
			data[i] = '#'
		}
		if again := encode(t, outputs[kind], obj); !bytes.Equal(first, again) {
			t.Fatalf("%q changed with the bytes it came from: %q", first, again)
		}
		next := &corev1.Endpoints{}
		if warnings, err := c.decode(bytes.Clone(first), kind, next, decodeAny, metav1.FieldValidationStrict); err != nil || len(warnings) > 0 {
			t.Fatalf("%q was not decoded again: %v, %q", first, err, warnings)
		}
		if second := encode(t, outputs[kind], next); !bytes.Equal(first, second) {
			t.Errorf("%q became %q", first, second)
		}
	})
}

func encode(t *testing.T, out output, obj runtime.Object) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := out.encoder.Encode(obj, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// expressible says whether the object's times have years of four digits.
func expressible(obj *corev1.Endpoints) bool {
	times := []*metav1.Time{&obj.CreationTimestamp, obj.DeletionTimestamp}
	for i := range obj.ManagedFields {
		times = append(times, obj.ManagedFields[i].Time)
	}
	for _, at := range times {
		if at != nil && (at.UTC().Year() < 0 || at.UTC().Year() > 9999) {
			return false
		}
	}
	return true
}

// Whatever the query of a create is, it is taken, or refused with 400 or 422.
func FuzzQuery(f *testing.F) {
	s := newTestServer(f, testConfig(f, &fakeResource{create: echo}))
	f.Fuzz(func(t *testing.T, query string) {
		req := newRequest(t, http.MethodPost, testPath, `{"metadata":{"name":"a"}}`)
		req.URL.RawQuery = query
		w := serveOnce(s, req)
		switch w.Code {
		case http.StatusCreated:
			checkCreated(t, w, req.URL.Query())
		case http.StatusBadRequest, http.StatusUnprocessableEntity:
			var status metav1.Status
			if err := kjson.UnmarshalCaseSensitivePreserveInts(w.Body.Bytes(), &status); err != nil || int(status.Code) != w.Code || status.Kind != "Status" || status.Message == "" {
				t.Errorf("%q: answered %q, %v", query, w.Body, err)
			}
		case http.StatusGatewayTimeout:
			if asked, err := time.ParseDuration(req.URL.Query().Get("timeout")); err != nil || asked <= 0 || asked > time.Second {
				t.Errorf("%q: timed out", query)
			}
		default:
			t.Errorf("%q: answered %d %q", query, w.Code, w.Body)
		}
	})
}

// checkCreated checks that a query that was taken is good.
func checkCreated(t *testing.T, w *httptest.ResponseRecorder, query url.Values) {
	t.Helper()
	for _, value := range query["dryRun"] {
		if value != metav1.DryRunAll {
			t.Errorf("dryRun %q was taken", value)
		}
	}
	if given := query["fieldValidation"]; len(given) > 0 && !strings.Contains(" Ignore Warn Strict ", " "+given[0]+" ") && given[0] != "" {
		t.Errorf("fieldValidation %q was taken", given[0])
	}
	if given := query["fieldManager"]; len(given) > 0 && len(given[0]) > 128 {
		t.Errorf("a fieldManager of %d bytes was taken", len(given[0]))
	}
	var obj corev1.Endpoints
	if err := kjson.UnmarshalCaseSensitivePreserveInts(w.Body.Bytes(), &obj); err != nil || obj.Name != "a" {
		t.Errorf("answered %q, %v", w.Body, err)
	}
}
