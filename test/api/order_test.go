package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// draft is a create that a fault spoils.
type draft struct {
	namespace string
	headers   map[string]string
	query     url.Values
	object    map[string]any
	prefix    string // of the body, in front of the object
	padding   int    // of the body, in bytes
}

// spoilers are what can be wrong with a create, in the order in which a client is told.
var spoilers = []struct {
	name    string
	spoil   func(d *draft)
	code    int
	message string
}{
	{"token", func(d *draft) { d.headers["X-Auth-Token"] = unknownToken }, 401, "Unauthorized"},
	{"limit", func(d *draft) { d.headers["X-Auth-Token"] = spentToken }, 429, "the limit for write requests"},
	{"permission", func(d *draft) { d.headers["X-Auth-Token"] = deniedToken }, 403, "cannot create resource"},
	{"timeout", func(d *draft) { d.query.Set("timeout", "abc") }, 400, `invalid timeout specified in the request URL - time: invalid duration \"abc\"`},
	{"accept", func(d *draft) { d.headers["Accept"] = "text/html" }, 406, "406: Not Acceptable"},
	{"media type", func(d *draft) { d.headers["Content-Type"] = "text/plain" }, 415, "unknown format"},
	{"size", func(d *draft) { d.padding = 3 << 20 }, 413, "Request entity too large"},
	{"options", func(d *draft) { d.query.Set("dryRun", "all") }, 422, `CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"all\"]`},
	{"body", func(d *draft) { d.prefix = "{bad" }, 400, "the object provided is unrecognized"},
	{"version", func(d *draft) { d.object["apiVersion"] = "v2" }, 400, `no kind \"Endpoints\" is registered for version \"v2\"`},
	{"strict", func(d *draft) { d.object["bogus"] = 1; d.query.Set("fieldValidation", "Strict") }, 400, "strict decoding error"},
	{"namespace", func(d *draft) { d.object["metadata"].(map[string]any)["namespace"] = "other" }, 400, "does not match the namespace sent on the request"},
	{"life cycle", func(d *draft) { d.namespace = "missing" }, 404, `namespaces \"missing\" not found`},
	{"object", func(d *draft) { d.object["subsets"] = []any{map[string]any{}} }, 422, "must specify `addresses` or `notReadyAddresses`"},
	{"name", func(d *draft) { d.object["metadata"].(map[string]any)["name"] = "taken" }, 409, `endpoints \"taken\" already exists`},
}

// Of two faults a client is told the one that kube-apiserver tells.
func TestOrderOfChecks(t *testing.T) {
	ns := newNamespace(t, shared)
	for _, token := range []string{aliceToken, spentToken} { // the second has no more after this
		send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("taken"), "X-Auth-Token", token))
	}
	for i, first := range spoilers {
		for j := i; j < len(spoilers); j++ {
			second := spoilers[j]
			t.Run(first.name+" before "+second.name, func(t *testing.T) {
				d := &draft{
					namespace: ns, headers: map[string]string{"Content-Type": "application/json"}, query: url.Values{},
					object: map[string]any{"kind": "Endpoints", "metadata": map[string]any{"name": fmt.Sprintf("e-%d-%d", i, j)}},
				}
				second.spoil(d)
				first.spoil(d) // last, where both change the same
				checkCode(t, send(t, shared.Client, d.request(t)), first.code, first.message)
			})
		}
	}
}

func (d *draft) request(t *testing.T) *http.Request {
	t.Helper()
	object, err := json.Marshal(d.object)
	if err != nil {
		t.Fatal(err)
	}
	sent := d.prefix + string(object) + strings.Repeat(" ", d.padding)
	var headers []string
	for name, value := range d.headers {
		headers = append(headers, name, value)
	}
	return newRequest(t, shared, http.MethodPost, endpointsPath(d.namespace, "")+"?"+d.query.Encode(), []byte(sent), headers...)
}
