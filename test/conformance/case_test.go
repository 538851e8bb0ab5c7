package conformance

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const text = `a remark before the first step

### create
# @name made
# a remark
POST /api/v1/namespaces/{{ns}}/endpoints?dryRun=All
Content-Type: application/json
Authorization:

{"a":
  1}

### list, in part
# @ignore metadata.resourceVersion, items
# @status-only
# @as ann
# @eventually
# @unordered items
# @base64
# @background
GET /api
`
	want := []step{
		{
			Title: "create", Line: 3, Name: "made", Method: "POST", Path: "/api/v1/namespaces/{{ns}}/endpoints?dryRun=All",
			Header: []field{{"Content-Type", "application/json"}, {"Authorization", ""}}, Body: "{\"a\":\n  1}",
		},
		{Title: "list, in part", Line: 13, Ignore: []string{"metadata.resourceVersion", "items"}, StatusOnly: true, As: "ann", Eventually: true, Unordered: []string{"items"}, Base64: true, Background: true, Method: "GET", Path: "/api"},
	}
	got, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParseFaults(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "there is no step"},
		{"### a\n", `line 1: "a" has no request line`},
		{"### a\n# @later\nGET /", "line 2: unknown directive @later"},
		{"### a\nGET\n", `line 2: "GET" is no request line`},
		{"### a\nGET /\nbroken\n", `line 3: "broken" is no header`},
	}
	for _, test := range tests {
		if _, err := parse(test.text); err == nil || err.Error() != test.want {
			t.Errorf("parse(%q): got error %v, want %s", test.text, err, test.want)
		}
	}
}

func TestExpand(t *testing.T) {
	vars := map[string]any{
		"ns":   "room",
		"made": map[string]any{"metadata": map[string]any{"uid": "u", "labels": map[string]any{"a": "b"}}},
	}
	got, err := step{
		Path:   "/{{ns}}/{{made.metadata.uid}}",
		Header: []field{{"X", "{{3*ab}}"}},
		Body:   `{"ns":"{{ns}}","labels":{{made.metadata.labels}}}`,
	}.expand(vars)
	if err != nil {
		t.Fatal(err)
	}
	want := step{Path: "/room/u", Header: []field{{"X", "ababab"}}, Body: `{"ns":"room","labels":{"a":"b"}}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, unknown := range []string{"{{nobody}}", "{{made.metadata.name}}", "{{ns.uid}}", "{{x*y}}"} {
		if _, err := (step{Body: unknown}).expand(vars); err == nil || !strings.Contains(err.Error(), unknown) {
			t.Errorf("expand(%s): got error %v, want one that names it", unknown, err)
		}
	}
}
