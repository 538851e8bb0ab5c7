package iam

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// quickHash is bcrypt's of "secret", at the lowest cost.
const quickHash = "$2a$04$mWD.n0bCLpGvCDa5QNtcwODiI/UClHqttaSjB7I1RyEEI4320snNy"

const header = "apiVersion: berth/v1alpha1\nkind: IAMConfiguration\n"

func TestParseConfig(t *testing.T) {
	c, err := parseConfig([]byte(header + `
domain: {id: d-1, name: Acme}
region: eu-1
url: https://berth.example.com:6443/
tokenLifetime: 90s
lockout: {attempts: 3, within: 1m}
limits: {tokens: 10, tokensPerUser: 2, logins: {qps: 0.5, burst: 7}}
projects:
- {name: team-a, namespaces: [a, b]}
- {name: team-b, id: 0123456789abcdef0123456789abcdef, enabled: false}
users:
- name: alice
  passwordHash: ` + quickHash + `
  roles:
  - {project: team-a, roles: [member, reader]}
  - {domain: true, roles: [admin]}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.domain != (ref{"d-1", "Acme"}) || c.region != "eu-1" || c.url != "https://berth.example.com:6443" || c.lifetime != 90*time.Second {
		t.Errorf("got %+v", c)
	}
	if want := (lockoutConfig{3, time.Minute, 15 * time.Minute}); c.lockout != want {
		t.Errorf("lockout = %v, want %v", c.lockout, want)
	}
	if want := (limits{10, 2, 0.5, 7}); c.limits != want {
		t.Errorf("limits = %v, want %v", c.limits, want)
	}
	a, b := c.projects[0], c.projects[1]
	if !a.enabled || b.enabled || b.id != "0123456789abcdef0123456789abcdef" || a.id != deriveID("d-1", "project", "team-a") {
		t.Errorf("projects = %+v", c.projects)
	}
	if diff := cmp.Diff([]string{"a", "b"}, a.namespaces); diff != "" {
		t.Errorf("namespaces (-want +got)\n%s", diff)
	}
	alice := c.users[0]
	if !alice.enabled || len(alice.roles) != 2 || alice.roles[0].project != "team-a" || !alice.roles[1].domain {
		t.Errorf("alice = %+v", alice)
	}
}

// A smaller file has the defaults; JSON is YAML.
func TestParseConfigDefaults(t *testing.T) {
	c, err := parseConfig([]byte(`{"apiVersion": "berth/v1alpha1", "kind": "IAMConfiguration", "lockout": {"attempts": 0}, "users": null}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.lifetime != 24*time.Hour || c.domain != (ref{"default", "Default"}) || c.region != "RegionOne" || c.lockout.attempts != 0 || len(c.users) != 0 {
		t.Errorf("got %+v", c)
	}
}

var faultyConfigs = []struct{ name, file, want string }{
	{"empty", "", "it is empty"},
	{"comments alone", "# nothing\n", "it is empty"},
	{"two documents", header + "---\na: b\n", "line 3: there is more than one YAML document"},
	{"bad YAML", "a: [", "line 1"},
	{"not UTF-8", "a: \xff", "it is not UTF-8"},
	{"a list", "- a\n", "line 1: must be a mapping"},
	{"another kind", "apiVersion: berth/v1alpha1\nkind: Other\n", "line 1: kind: must be IAMConfiguration"},
	{"no version", "kind: IAMConfiguration\n", "line 1: apiVersion: must be berth/v1alpha1"},
	{"unknown key", header + "user: []\n", "line 3: user: is not a known field"},
	{"other case", header + "Users: []\n", "line 3: Users: is not a known field"},
	{"repeated key", header + "region: a\nregion: b\n", "line 4: region: is there already, in line 3"},
	{"unknown key below", header + "projects:\n- {name: a, namespace: b}\n", "line 4: projects[0].namespace: is not a known field"},
	{"merge key", header + "projects:\n- &a {name: a}\n- <<: *a\n", "projects[1].<<: is not a known field"},
	{"alias", header + "projects:\n- &a {name: a}\n- *a\n", "line 5: projects[1]: must be a mapping"},
	{"a number as a name", header + "projects: [{name: 5}]\n", "line 3: projects[0].name: must be a string"},
	{"colon", header + "projects: [{name: 'a:b'}]\n", `line 3: projects[0].name: "a:b" must not have a colon`},
	{"system user", header + "users:\n- name: system:admin\n  passwordHash: " + quickHash, `line 4: users[0].name: "system:admin" must not have a colon`},
	{"colon in a role", header + "users:\n- name: a\n  passwordHash: " + quickHash + "\n  roles: [{domain: true, roles: ['x:admin']}]\n", "line 6: users[0].roles[0].roles[0]:"},
	{"control character", header + `region: "a\nb"`, "line 3: region:"},
	{"space", header + `region: " a"`, "line 3: region:"},
	{"no name", header + "projects:\n- {enabled: true}\n", "line 4: projects[0].name: is required"},
	{"null name", header + "projects:\n- {name: }\n", "line 4: projects[0].name: must not be empty"},
	{"empty name", header + "projects:\n- {name: ''}\n", "line 4: projects[0].name: must have 1 to 255 bytes"},
	{"two projects", header + "projects:\n- {name: a}\n- {name: a}\n", `line 5: projects[1].name: "a" is the name in line 4 already`},
	{"two ids", header + "projects:\n- {name: a, id: 0123456789abcdef0123456789abcdef}\n- {name: b, id: 0123456789abcdef0123456789abcdef}\n", "line 5: projects[1].id:"},
	{"id", header + "projects:\n- {name: a, id: team-a}\n", "line 4: projects[0].id: must be 32"},
	{"namespace", header + "projects:\n- {name: a, namespaces: [A]}\n", `line 4: projects[0].namespaces[0]: "A" is not the name of a namespace`},
	{"boolean", header + "projects:\n- {name: a, enabled: 'no'}\n", "line 4: projects[0].enabled: must be true or false"},
	{"no hash", header + "users: [{name: a}]\n", "line 3: users[0].passwordHash: is required"},
	{"plain password", header + "users:\n- name: a\n  passwordHash: hunter2\n", "line 5: users[0].passwordHash: must be a hash"},
	{"costly hash", header + "users:\n- name: a\n  passwordHash: " + strings.Replace(quickHash, "$04$", "$31$", 1), "line 5: users[0].passwordHash: has a cost of 31"},
	{"unknown project", header + "users:\n- name: a\n  passwordHash: " + quickHash + "\n  roles: [{project: b, roles: [c]}]\n", `line 6: users[0].roles[0].project: there is no project "b"`},
	{"project and domain", header + "projects: [{name: b}]\nusers:\n- name: a\n  passwordHash: " + quickHash + "\n  roles: [{project: b, domain: true, roles: [c]}]\n", "line 7: users[0].roles[0]: must have either"},
	{"neither", header + "users:\n- name: a\n  passwordHash: " + quickHash + "\n  roles: [{roles: [c]}]\n", "line 6: users[0].roles[0]: must have either"},
	{"project twice", header + "projects: [{name: b}]\nusers:\n- name: a\n  passwordHash: " + quickHash + "\n  roles:\n  - {project: b, roles: [c]}\n  - {project: b, roles: [d]}\n", "line 9: users[0].roles[1]: the user has roles there already, in line 8"},
	{"no roles", header + "users:\n- name: a\n  passwordHash: " + quickHash + "\n  roles: [{domain: true, roles: []}]\n", "roles[0].roles: must not be empty"},
	{"role twice", header + "users:\n- name: a\n  passwordHash: " + quickHash + "\n  roles: [{domain: true, roles: [b, b]}]\n", `roles[0].roles[1]: "b" is there already`},
	{"short life", header + "tokenLifetime: 1ms\n", "line 3: tokenLifetime: must be a duration from 1s"},
	{"no unit", header + "tokenLifetime: 24\n", "line 3: tokenLifetime: must be a duration"},
	{"attempts", header + "lockout: {attempts: -1}\n", "line 3: lockout.attempts: must be an integer from 0"},
	{"qps", header + "limits: {logins: {qps: .nan}}\n", "line 3: limits.logins.qps: must be a number"},
	{"url", header + "url: berth.example.com\n", "line 3: url: must be a URL"},
	{"domain id", header + "domain: {id: 'a b'}\n", "line 3: domain.id: must be 1 to 64"},
}

func TestParseConfigRefuses(t *testing.T) {
	for _, tt := range faultyConfigs {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseConfig([]byte(tt.file))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error = %v\nwant    %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "UClHqttaS") {
				t.Errorf("the error has the password, or its hash: %v", err)
			}
		})
	}
}

// All faults are told at once, up to a bound.
func TestParseConfigTellsAllFaults(t *testing.T) {
	_, err := parseConfig([]byte(header + strings.Repeat("x: 1\n", 30)))
	if err == nil || strings.Count(err.Error(), "; ") != maxFaults || !strings.Contains(err.Error(), "and 20 more faults") {
		t.Errorf("error = %v", err)
	}
}

// No file crashes the server, and one that is accepted makes a directory.
func FuzzParseConfig(f *testing.F) {
	for _, tt := range faultyConfigs {
		f.Add([]byte(tt.file))
	}
	f.Add([]byte(testFile))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		d := newDirectory(c)
		for _, u := range d.users {
			for s := range u.inProjects {
				if g, state := d.grantTo(u, scope{projectScope, s}); state == alive {
					d.kubernetesUser(g)
				}
			}
			if strings.Contains(u.name, ":") {
				t.Fatalf("user %q", u.name)
			}
		}
	})
}
