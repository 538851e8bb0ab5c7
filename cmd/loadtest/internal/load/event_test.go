package load

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// realEvent is as a server sends it, except for the number of addresses.
const realEvent = `{"type":"MODIFIED","object":{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"lt-a1-p7","namespace":"loadtest","selfLink":"/api/v1/namespaces/loadtest/endpoints/lt-a1-p7","uid":"8de0af5a-aabf-4706-87ec-b6fe7e1307d6","resourceVersion":"4711","creationTimestamp":"2026-11-22T15:50:12Z","labels":{"berth-loadtest/run":"a1"},"annotations":{"berth-loadtest/write":"a1.99"},"managedFields":[{"manager":"berth-loadtest","operation":"Update","apiVersion":"v1","time":"2026-11-22T15:50:12Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:berth-loadtest/write":{}},"f:labels":{".":{},"f:berth-loadtest/run":{}}},"f:subsets":{}}}]},"subsets":[{"addresses":[{"ip":"10.16.0.1","nodeName":"node-0","targetRef":{"kind":"Pod","namespace":"loadtest","name":"pod-0","uid":"00000000-0000-4000-8000-000000000000"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}]}}` + "\n"

func TestParseEvent(t *testing.T) {
	for name, test := range map[string]struct {
		head string
		want event
		err  bool
	}{
		"a whole event":    {realEvent, event{kind: "MODIFIED", name: "lt-a1-p7", version: "4711", write: "a1.99"}, false},
		"only its head":    {realEvent[:strings.Index(realEvent, "subsets\":[{")], event{kind: "MODIFIED", name: "lt-a1-p7", version: "4711", write: "a1.99"}, false},
		"a bookmark":       {`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12","creationTimestamp":null}}}`, event{kind: "BOOKMARK", version: "12"}, false},
		"an expired one":   {`{"type":"ERROR","object":{"kind":"Status","metadata":{},"status":"Failure","reason":"Expired","code":410}}`, event{kind: "ERROR", code: 410}, false},
		"other orders":     {`{"object":{"subsets":[[{}]],"metadata":{"annotations":{"x":"y"},"resourceVersion":"3","name":"n"}},"type":"ADDED"}`, event{kind: "ADDED", name: "n", version: "3"}, false},
		"no annotations":   {`{"type":"ADDED","object":{"metadata":{"annotations":null,"name":"n"}}}`, event{kind: "ADDED", name: "n"}, false},
		"a head too short": {realEvent[:120], event{}, true},
		"no object":        {`{"type":"ADDED","object":[]}`, event{}, true},
		"no type":          {`{"object":{"metadata":{"name":"n"}}}`, event{name: "n"}, true},
		"no JSON":          {`HTTP/1.1 200 OK`, event{}, true},
		"nothing":          {"", event{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseEvent([]byte(test.head))
			if (err != nil) != test.err {
				t.Fatalf("error %v, want one: %v", err, test.err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(event{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// parseEvent reads the same from a whole event as encoding/json.
func FuzzParseEvent(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseEvent(data)
		var whole any
		if json.Unmarshal(data, &whole) != nil || err != nil {
			return
		}
		root := whole.(map[string]any)
		object, _ := root["object"].(map[string]any)
		metadata, _ := object["metadata"].(map[string]any)
		if twice(data) {
			return // encoding/json takes the later one, parseEvent may stop at the earlier one
		}
		name, _ := metadata["name"].(string)
		version, _ := metadata["resourceVersion"].(string)
		annotations, _ := metadata["annotations"].(map[string]any)
		write, _ := annotations[writeAnnotation].(string)
		want := event{kind: root["type"].(string), name: name, version: version, write: write, code: got.code}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", data, diff)
		}
	})
}

// twice reports whether a name that matters may occur twice, possibly with escapes.
func twice(data []byte) bool {
	for _, name := range []string{"type", "object", "metadata", "name", "resourceVersion", "annotations", writeAnnotation} {
		if strings.Count(string(data), name) > 1 {
			return true
		}
	}
	return strings.Contains(string(data), `\u`) || strings.Contains(string(data), `\/`)
}

func BenchmarkParseEvent(b *testing.B) {
	line := []byte(realEvent)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseEvent(line); err != nil {
			b.Fatal(err)
		}
	}
}
