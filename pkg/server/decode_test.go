package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
)

// The texts are kube-apiserver's.
func TestDecodeErrors(t *testing.T) {
	c := newCodecs(testScheme(t))
	const (
		handled      = `Endpoints in version "v1" cannot be handled as a Endpoints: `
		unrecognised = "the object provided is unrecognized (must be of type Endpoints): "
	)
	for name, tc := range map[string]struct {
		data, mediaType, validation string
		want                        string
	}{
		"no JSON":          {`{bad`, mediaTypes[0], "", unrecognised + "couldn't get version/kind; json parse error: invalid character 'b' looking for beginning of object key string ({bad)"},
		"empty":            {``, mediaTypes[0], "", unrecognised + "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"},
		"long":             {`{"metadata":{"name":"aaaaaaaaaaaaaaaaaaaaaaaaa`, mediaTypes[0], "", unrecognised + `couldn't get version/kind; json parse error: unexpected end of JSON input ({"metadata":{"name":"aaaaaaaaa ...)`},
		"wrong type":       {`{"subsets":[{"addresses":[{"ip":1}]}]}`, mediaTypes[0], "", handled + "json: cannot unmarshal number into Go struct field EndpointAddress.subsets.addresses.ip of type string"},
		"other kind":       {`{"kind":"Pod","apiVersion":"v1"}`, mediaTypes[0], "", `Pod in version "v1" cannot be handled as a Endpoints: converting (v1.Pod) to (core.Endpoints): unknown conversion`},
		"unknown kind":     {`{"kind":"Nope","apiVersion":"v1"}`, mediaTypes[0], "", `Nope in version "v1" cannot be handled as a Endpoints: no kind "Nope" is registered for version "v1"`},
		"strict":           {`{"metadata":{"name":"a","name":"b","bogus":1},"foo":1}`, mediaTypes[0], "Strict", handled + `strict decoding error: duplicate field "metadata.name", unknown field "metadata.bogus", unknown field "foo"`},
		"case":             {`{"metadata":{"Name":"a"}}`, mediaTypes[0], "Strict", handled + `strict decoding error: unknown field "metadata.Name"`},
		"no protobuf":      {`{"metadata":{}}`, mediaTypes[2], "", unrecognised + `provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({"metadata":{}})`},
		"empty protobuf":   {``, mediaTypes[2], "", unrecognised + `empty data (<empty>)`},
		"no YAML":          {"\tbad: [", mediaTypes[1], "", unrecognised + "yaml: found character that cannot start any token (096261643a205b)"},
		"strict YAML":      {"foo: 1\n", mediaTypes[1], "Strict", handled + `strict decoding error: unknown field "foo"`},
		"YAML, wrong type": {"subsets: 1\n", mediaTypes[1], "", handled + "json: cannot unmarshal number into Go struct field Endpoints.subsets of type []v1.EndpointSubset"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.decode([]byte(tc.data), tc.mediaType, &corev1.Endpoints{}, decodeAny, tc.validation)
			if !apierrors.IsBadRequest(err) || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestDecodeWarnings(t *testing.T) {
	c := newCodecs(testScheme(t))
	const data = `{"metadata":{"name":"a","name":"b","bogus":1}}`
	for validation, want := range map[string][]string{
		"":       {`duplicate field "metadata.name"`, `unknown field "metadata.bogus"`},
		"Warn":   {`duplicate field "metadata.name"`, `unknown field "metadata.bogus"`},
		"Ignore": nil,
	} {
		obj := &corev1.Endpoints{}
		got, err := c.decode([]byte(data), mediaTypes[0], obj, decodeAny, validation)
		if err != nil || obj.Name != "b" || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, name %q, %v, want %q", validation, got, obj.Name, err, want)
		}
	}
	got, err := c.decode([]byte("metadata:\n  name: a\n  name: b\n"), mediaTypes[1], &corev1.Endpoints{}, decodeAny, "")
	if want := []string{`line 3: key "name" already set in map`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("YAML: got %q, %v, want %q", got, err, want)
	}
}

// A small body that stands for a large one is too large.
func TestDecodeExpandingYAML(t *testing.T) {
	c := newCodecs(testScheme(t))
	data := "metadata:\n  annotations: {a: &a " + strings.Repeat("x", 1_000_000) + strings.Repeat(", b: *a", 9) + "}\n"
	_, err := c.decode([]byte(data), mediaTypes[1], &corev1.Endpoints{}, decodeAny, "")
	if !apierrors.IsRequestEntityTooLargeError(err) || !strings.Contains(err.Error(), "more than 8388608 bytes") {
		t.Errorf("got %v", err)
	}
}

// A body that stops half-way is given up when the request's time is up; the next request
// finds the server as it was.
func TestBodyThatStops(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{create: echo}))
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			web := httptest.NewUnstartedServer(s)
			web.EnableHTTP2 = http2
			web.StartTLS()
			defer web.Close()
			reader, writer := io.Pipe()
			req := clientRequest(t, web.URL+testPath+"?timeout=50ms")
			req.Method, req.Body = http.MethodPost, reader
			go func() { _, _ = io.WriteString(writer, `{"metadata":`) }()
			resp, err := web.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			writer.Close()
			if err != nil || resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(answer), `"reason":"Timeout"`) || resp.Header.Get("Retry-After") != "1" {
				t.Errorf("got %d %s, %v", resp.StatusCode, answer, err)
			}
			next := clientRequest(t, web.URL+testPath)
			next.Method, next.Body = http.MethodPost, io.NopCloser(strings.NewReader(`{}`))
			if resp, err = web.Client().Do(next); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				t.Errorf("the next request got %d", resp.StatusCode)
			}
		})
	}
}

// slowResource takes its time to decode.
type slowResource struct{ fakeResource }

func (s *slowResource) DecodeInto(data []byte, obj runtime.Object) ([]error, error) {
	<-time.After(20 * time.Millisecond)
	return decodeAny(data, obj)
}

// The time may be up when the body has been decoded: the resource is not asked any more.
func TestTimeoutWhileDecoding(t *testing.T) {
	s := newTestServer(t, testConfig(t, &slowResource{}))
	w := serveOnce(s, newRequest(t, http.MethodPost, testPath+"?timeout=10ms", `{}`))
	if want := "its time ended while its body was being decoded"; w.Code != http.StatusGatewayTimeout || !strings.Contains(w.Body.String(), want) {
		t.Errorf("got %d %s, want 504 and %q", w.Code, w.Body, want)
	}
}
