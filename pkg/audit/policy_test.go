package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/auth"
)

const header = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"

var (
	alice     = &auth.User{Name: "alice", Groups: []string{"team-a", auth.AllAuthenticated}}
	anonymous = &auth.User{Name: auth.Anonymous, Groups: []string{auth.AllUnauthenticated}}
)

func TestFits(t *testing.T) {
	get := func(change ...func(*auth.Attributes)) auth.Attributes {
		a := auth.Attributes{User: alice, Verb: "get", ResourceRequest: true, APIVersion: "v1", Resource: "endpoints", Namespace: "a", Name: "web"}
		for _, f := range change {
			f(&a)
		}
		return a
	}
	path := func(path string) auth.Attributes { return auth.Attributes{User: alice, Verb: "get", Path: path} }
	nobody := func(a *auth.Attributes) { a.User = nil }
	status := func(a *auth.Attributes) { a.Subresource = "status" }
	for _, tt := range []struct {
		rule string // the conditions, as YAML in one line
		a    auth.Attributes
		want bool
	}{
		{`{}`, get(), true},
		{`{}`, path("/metrics"), true},
		{`{users: [alice]}`, get(), true},
		{`{users: [Alice, "*"]}`, get(), false},
		{`{users: [""]}`, get(nobody), false},
		{`{userGroups: [other, team-a]}`, get(), true},
		{`{userGroups: ["*"]}`, get(), false},
		{`{userGroups: [team-a]}`, get(nobody), false},
		{`{users: [alice], userGroups: [other]}`, get(), false},
		{`{verbs: [get]}`, get(), true},
		{`{verbs: [GET, "*"]}`, get(), false},
		{`{namespaces: [a]}`, get(), true},
		{`{namespaces: [b]}`, get(), false},
		{`{namespaces: [""]}`, get(), false},
		{`{namespaces: [""]}`, get(func(a *auth.Attributes) { a.Namespace = "" }), true},
		{`{namespaces: [""]}`, path("/metrics"), false},
		{`{resources: [{}]}`, get(), true},
		{`{resources: [{}]}`, path("/api"), false},
		{`{resources: [{group: ""}]}`, get(), true},
		{`{resources: [{group: "*"}]}`, get(func(a *auth.Attributes) { a.APIGroup = "apps" }), true},
		{`{resources: [{group: apps}]}`, get(), false},
		{`{resources: [{resources: [endpoints]}]}`, get(), true},
		{`{resources: [{resources: [endpoints]}]}`, get(status), false},
		{`{resources: [{resources: [endpoints/status]}]}`, get(status), true},
		{`{resources: [{resources: [endpoints/status]}]}`, get(), false},
		{`{resources: [{resources: ["*"]}]}`, get(status), true},
		{`{resources: [{resources: ["*/status"]}]}`, get(status), true},
		{`{resources: [{resources: ["*/status"]}]}`, get(), false},
		{`{resources: [{resources: ["endpoints/*"]}]}`, get(status), true},
		{`{resources: [{resources: ["endpoints/*"]}]}`, get(), true},
		{`{resources: [{resources: ["endpoint/*", "*/*/x", ""]}]}`, get(), false},
		{`{resources: [{resources: ["*/*"]}]}`, get(), false},
		{`{resources: [{resources: [endpoints], resourceNames: [web]}]}`, get(), true},
		{`{resources: [{resources: [endpoints], resourceNames: [db]}]}`, get(), false},
		{`{resources: [{resources: [pods]}, {resources: [endpoints]}]}`, get(), true},
		{`{namespaces: [b], resources: [{}]}`, get(), false},
		{`{nonResourceURLs: ["*"]}`, get(), false},
		{`{nonResourceURLs: ["*"]}`, path("/metrics"), true},
		{`{nonResourceURLs: [/metrics]}`, path("/metrics"), true},
		{`{nonResourceURLs: [/metrics]}`, path("/metrics/x"), false},
		{`{nonResourceURLs: ["/api*"]}`, path("/apis/apps"), true},
		{`{nonResourceURLs: ["/api/*"]}`, path("/api"), false},
	} {
		policy, err := ParsePolicy([]byte(header + "rules:\n- " + strings.Replace(tt.rule, "{", "{level: Metadata, ", 1)))
		if err != nil {
			t.Errorf("%s: %v", tt.rule, err)
			continue
		}
		if got := policy.decide(&tt.a).level == Metadata; got != tt.want {
			t.Errorf("%s fits %+v: %v, want %v", tt.rule, tt.a, got, tt.want)
		}
	}
}

// TestDecide tells the first rule from those behind it, and what a rule says from what the
// policy says.
func TestDecide(t *testing.T) {
	policy, err := ParsePolicy([]byte(header + `
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, verbs: [watch]}
- {level: Request, verbs: [get], omitStages: [Panic], omitManagedFields: false}
- {level: RequestResponse, users: [alice]}
- {level: Metadata, users: [alice]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user *auth.User
		verb string
		want string
	}{
		{alice, "watch", "None [RequestReceived] true"},
		{alice, "get", "Request [RequestReceived Panic] false"},
		{anonymous, "get", "Request [RequestReceived Panic] false"},
		{alice, "create", "RequestResponse [RequestReceived] true"},
		{anonymous, "create", "None [] false"},
		{nil, "create", "None [] false"},
	} {
		d := policy.decide(&auth.Attributes{User: tt.user, Verb: tt.verb})
		if got := strings.TrimSpace(strings.Join([]string{d.level.String(), fmt.Sprint(d.omitStages), fmt.Sprint(d.omitManagedFields)}, " ")); got != tt.want {
			t.Errorf("%v %s: got %s, want %s", tt.user, tt.verb, got, tt.want)
		}
	}
}

func TestPresets(t *testing.T) {
	levels := map[string][]string{}
	for _, name := range Presets {
		policy, err := Preset(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, a := range []auth.Attributes{
			{User: anonymous, Verb: "get", Path: "/readyz"},
			{Verb: "get", Path: "/readyz/etcd"}, // a token that is not valid
			{User: alice, Verb: "get", Path: "/metrics"},
			{User: alice, Verb: "post", Path: "/v3/auth/tokens"},
			{Verb: "get", ResourceRequest: true, Resource: "endpoints"},
			{User: anonymous, Verb: "list", ResourceRequest: true, Resource: "endpoints"},
			{User: alice, Verb: "list", ResourceRequest: true, Resource: "endpoints"},
			{User: alice, Verb: "create", ResourceRequest: true, Resource: "endpoints"},
			{User: alice, Verb: "update", ResourceRequest: true, APIGroup: "coordination.k8s.io", Resource: "leases"},
			{User: alice, Verb: "delete", ResourceRequest: true, APIGroup: "coordination.k8s.io", Resource: "leases"},
			{User: alice, Verb: "create", ResourceRequest: true, APIGroup: "authentication.k8s.io", Resource: "tokenreviews"},
			{User: alice, Verb: "create", ResourceRequest: true, APIGroup: "authentication.k8s.io", Resource: "selfsubjectreviews"},
		} {
			levels[name] = append(levels[name], policy.decide(&a).level.String())
		}
	}
	want := map[string][]string{
		"metadata": {"None", "None", "Metadata", "Metadata", "Metadata", "Metadata", "Metadata", "Metadata", "Metadata", "Metadata", "Metadata", "Metadata"},
		"minimal":  {"None", "None", "None", "Metadata", "Metadata", "Metadata", "None", "Metadata", "None", "Metadata", "Metadata", "None"},
		"full":     {"Metadata", "Metadata", "Metadata", "Metadata", "RequestResponse", "RequestResponse", "RequestResponse", "RequestResponse", "RequestResponse", "RequestResponse", "Metadata", "RequestResponse"},
	}
	if diff := cmp.Diff(want, levels); diff != "" {
		t.Errorf("levels (-want +got)\n%s", diff)
	}
	if _, err := Preset("some"); err == nil || err.Error() != `"some" is not one of metadata, minimal, full` {
		t.Errorf("an unknown preset: %v", err)
	}
}

// TestFaults has every fault named, with its line and field.
func TestFaults(t *testing.T) {
	for _, tt := range []struct{ name, policy, want string }{
		{"empty", "\n", "it is empty; a policy has apiVersion, kind and rules"},
		{"only a comment", "# nothing\n", "it is empty; a policy has apiVersion, kind and rules"},
		{"a list", "- a\n", "line 1: it must be an object with fields"},
		{"no rules", header + "rules: []\n", "line 3: rules: the policy has 0 rules, with which nothing would be recorded"},
		{"rules left out", header, "line 1: rules: the policy has 0 rules, with which nothing would be recorded"},
		{"another version", "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]\n", `line 1: apiVersion, kind: it is a Policy of "audit.k8s.io/v1beta1", and must be a Policy of "audit.k8s.io/v1"`},
		{"no version", "rules:\n- level: Metadata\n", `line 1: apiVersion, kind: it is a  of "", and must be a Policy of "audit.k8s.io/v1"`},
		{"no YAML", header + "rules:\n- level: [Metadata\n", "yaml: line 4: did not find expected ',' or ']'"},
		{"two documents", header + "rules: [{level: None}]\n---\n" + header, "there is more than one YAML document: send each in a request of its own"},
		{"a text for a list", header + "rules:\n- level: Metadata\n  users: alice\n", "line 5: rules[0].users: it must be a list"},
		{"a list for a text", header + "rules:\n- level: [Metadata]\n", "line 4: rules[0].level: it must be text; put numbers and the like in quotes"},
		{"a number", header + "rules:\n- level: Metadata\n  users: [a, 7]\n", "line 5: rules[0].users[1]: it must be text; put numbers and the like in quotes"},
		{"no boolean", header + "omitManagedFields: often\nrules: [{level: None}]\n", "line 3: omitManagedFields: it must be true or false"},
		{"a text for a rule", header + "rules: [all]\n", "line 3: rules[0]: it must be an object with fields"},
		{
			"misspelt and repeated fields", header + "rule: 1\nrules:\n- level: Metadata\n  namespace: a\n  level: None\n  Users: [b]\n  resources:\n  - groups: x\n",
			"line 3: rule: there is no such field; there are kind, apiVersion, metadata, rules, omitStages, omitManagedFields; " +
				"line 6: rules[0].namespace: there is no such field; there are level, users, userGroups, verbs, resources, namespaces, nonResourceURLs, omitStages, omitManagedFields; " +
				"line 7: rules[0].level: it is given twice, first in line 5; " +
				"line 8: rules[0].Users: there is no such field; there are level, users, userGroups, verbs, resources, namespaces, nonResourceURLs, omitStages, omitManagedFields; " +
				"line 10: rules[0].resources[0].groups: there is no such field; there are group, resources, resourceNames",
		},
		{
			"values", header + "omitStages: [RequestReceived, Received]\nrules:\n- level: Verbose\n- users: [a]\n- level: None\n  nonResourceURLs:\n  - healthz\n  - /a*/b\n  namespaces: [a]\n- level: None\n  resources:\n  - group: ''\n  - group: apps/v1\n  - resourceNames: [web]\n  omitStages: [panic]\n",
			`line 3: omitStages[1]: Invalid value: "Received": allowed stages are [RequestReceived ResponseStarted ResponseComplete Panic]; ` +
				`line 5: rules[0].level: Unsupported value: "Verbose": supported values: "None", "Metadata", "Request", "RequestResponse"; ` +
				`line 6: rules[1].level: Required value; ` +
				`line 9: rules[2].nonResourceURLs: Invalid value: ["healthz","/a*/b"]: a rule is about URLs or about resources and namespaces, not about both; ` +
				`line 9: rules[2].nonResourceURLs[0]: Invalid value: "healthz": it must begin with a '/', or be '*'; ` +
				`line 10: rules[2].nonResourceURLs[1]: Invalid value: "/a*/b": a '*' must be the last character; ` +
				`line 15: rules[3].resources.group: Invalid value: "apps/v1": it must be a group without a version: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'); ` +
				`line 16: rules[3].resources.resourceNames: Invalid value: ["web"]: it requires at least one resource; ` +
				`line 17: rules[3].omitStages[0]: Invalid value: "panic": allowed stages are [RequestReceived ResponseStarted ResponseComplete Panic]`,
		},
		{"JSON", `{"apiVersion":"audit.k8s.io/v1","kind":"Policy","metadata":{"labels":{"a":"b"}},"rules":[{"level":"Metadata"}]}`, ""},
		{"an alias", header + "rules:\n- &all {level: None}\n- *all\n", ""},
	} {
		_, err := ParsePolicy([]byte(tt.policy))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestLoadPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if _, err := LoadPolicy(path); err == nil || err.Error() != "loading the audit policy: open "+path+": no such file or directory" {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte(header+"rules:\n- level: some\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := `loading the audit policy: file ` + path + `: line 4: rules[0].level: Unsupported value: "some": supported values: "None", "Metadata", "Request", "RequestResponse"`
	if _, err := LoadPolicy(path); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, name := range Presets {
		data, err := presets.ReadFile("presets/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(header + "rules: [{level: None, <<: *x}]\nx: &x {users: [a]}"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte(header + "rules: [{level: None}, 5, null, {resources: [null, 7]}]\nmetadata: 3"))
	f.Fuzz(func(t *testing.T, data []byte) {
		policy, err := ParsePolicy(data)
		if (policy == nil) == (err == nil) {
			t.Fatalf("got %v and %v", policy, err)
		}
		if err == nil {
			policy.decide(&auth.Attributes{User: alice, Verb: "get", ResourceRequest: true, Resource: "endpoints"})
			policy.decide(&auth.Attributes{Verb: "get", Path: "/metrics"})
		}
	})
}
