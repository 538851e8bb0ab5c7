package iam

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Kind and APIVersion of a configuration file.
const (
	Kind       = "IAMConfiguration"
	APIVersion = "berth/v1alpha1"
)

// AdminRole on the domain makes an administrator.
const AdminRole = "admin"

// readerRole only reads.
const readerRole = "reader"

const (
	// maxFileBytes is what some 15,000 users need.
	maxFileBytes = 4 << 20
	maxNameBytes = 255 // as Keystone's names of users

	maxTokenLifetime = 30 * 24 * time.Hour
	maxLockoutTime   = 24 * time.Hour
	maxAttempts      = 1_000
	maxTokens        = 1_000_000
	minLoginsQPS     = 0.001
	maxLoginsQPS     = 1_000
	maxLoginsBurst   = 1_000_000
)

// config is what a file says, with the defaults filled in.
type config struct {
	domain   ref
	region   string
	url      string // without a closing slash; "": that of each request
	lifetime time.Duration
	lockout  lockoutConfig
	limits   limits
	projects []projectConfig
	users    []userConfig
}

// ref is an id and a name.
type ref struct{ id, name string }

// lockoutConfig says that attempts wrong passwords within that time lock a user out for the
// duration, where they come from. No attempts: never.
type lockoutConfig struct {
	attempts         int
	within, duration time.Duration
}

type limits struct {
	tokens, tokensPerUser int
	loginsQPS             float64
	loginsBurst           int
}

type projectConfig struct {
	ref
	line       int
	enabled    bool
	namespaces []string
}

type userConfig struct {
	ref
	line     int
	enabled  bool
	password passwordHash
	roles    []assignment
}

// assignment is the roles that a user has in a project, or on the domain.
type assignment struct {
	node, projectNode *yaml.Node
	field             string
	domain            bool
	project           string // by name; "" if it is the domain
	roles             []string
}

func readConfig(path string) (*config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // it names the path
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", path, info.Size(), maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// parseConfig reads a configuration file: one YAML or JSON document of Kind and APIVersion.
// The error has each fault: the line, the field and the reason, never a hash.
func parseConfig(data []byte) (*config, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("it is not UTF-8")
	}
	root, err := document(data)
	if err != nil {
		return nil, err
	}
	c := &config{
		domain: ref{"default", "Default"}, region: "RegionOne", lifetime: 24 * time.Hour, // as Huawei's tokens
		lockout: lockoutConfig{attempts: 5, within: 15 * time.Minute, duration: 15 * time.Minute},
		limits:  limits{tokens: 50_000, tokensPerUser: 1_000, loginsQPS: 5, loginsBurst: 100},
	}
	r, apiVersion, kind := &reader{}, "", ""
	r.fields(root, "", map[string]func(*yaml.Node, string){
		"apiVersion":    func(n *yaml.Node, path string) { apiVersion = r.text(n, path) },
		"kind":          func(n *yaml.Node, path string) { kind = r.text(n, path) },
		"domain":        func(n *yaml.Node, path string) { r.domain(n, path, &c.domain) },
		"region":        func(n *yaml.Node, path string) { c.region = r.name(n, path) },
		"url":           func(n *yaml.Node, path string) { c.url = r.url(n, path) },
		"tokenLifetime": func(n *yaml.Node, path string) { c.lifetime = r.duration(n, path, time.Second, maxTokenLifetime) },
		"lockout":       func(n *yaml.Node, path string) { r.lockout(n, path, &c.lockout) },
		"limits":        func(n *yaml.Node, path string) { r.limits(n, path, &c.limits) },
		"projects": func(n *yaml.Node, path string) {
			r.list(n, path, func(n *yaml.Node, path string) { c.projects = append(c.projects, r.project(n, path)) })
		},
		"users": func(n *yaml.Node, path string) {
			r.list(n, path, func(n *yaml.Node, path string) { c.users = append(c.users, r.user(n, path)) })
		},
	})
	for _, want := range []struct{ field, got, want string }{{"apiVersion", apiVersion, APIVersion}, {"kind", kind, Kind}} {
		if want.got != want.want {
			r.fault(root, want.field, "must be %s", want.want)
		}
	}
	c.fillIn(r)
	return c, r.err()
}

// fillIn derives the ids that are left out, and finds what contradicts something else.
func (c *config) fillIn(r *reader) {
	projects, users := uniqueness{}, uniqueness{}
	for i := range c.projects {
		p := &c.projects[i]
		if p.id == "" {
			p.id = deriveID(c.domain.id, "project", p.name)
		}
		projects.check(r, p.ref, p.line, fmt.Sprintf("projects[%d]", i))
	}
	for i := range c.users {
		u := &c.users[i]
		if u.id == "" {
			u.id = deriveID(c.domain.id, "user", u.name)
		}
		users.check(r, u.ref, u.line, fmt.Sprintf("users[%d]", i))
		seen := map[string]int{}
		for _, a := range u.roles {
			if first, ok := seen[a.project]; ok {
				r.fault(a.node, a.field, "the user has roles there already, in line %d", first)
			}
			seen[a.project] = a.node.Line
			if a.projectNode != nil && a.project != "" && projects["name "+a.project] == 0 {
				r.fault(a.projectNode, a.field+".project", "there is no project %q", a.project)
			}
		}
	}
}

// uniqueness has the lines of the names and ids that were there.
type uniqueness map[string]int

func (u uniqueness) check(r *reader, one ref, line int, field string) {
	at := &yaml.Node{Line: line}
	for _, key := range []struct{ what, value string }{{"name", one.name}, {"id", one.id}} {
		if key.value == "" {
			continue // a fault already
		}
		if first, ok := u[key.what+" "+key.value]; ok {
			r.fault(at, field+"."+key.what, "%q is the %s in line %d already", key.value, key.what, first)
			return
		}
		u[key.what+" "+key.value] = line
	}
}

func (r *reader) domain(n *yaml.Node, path string, d *ref) {
	r.fields(n, path, map[string]func(*yaml.Node, string){
		"id": func(n *yaml.Node, path string) {
			if d.id = r.text(n, path); strings.Trim(d.id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || d.id == "" || len(d.id) > 64 {
				r.fault(n, path, "must be 1 to 64 lower-case letters, digits and dashes")
			}
		},
		"name": func(n *yaml.Node, path string) { d.name = r.name(n, path) },
	})
}

func (r *reader) lockout(n *yaml.Node, path string, l *lockoutConfig) {
	r.fields(n, path, map[string]func(*yaml.Node, string){
		"attempts": func(n *yaml.Node, path string) { l.attempts = r.integer(n, path, 0, maxAttempts) },
		"within":   func(n *yaml.Node, path string) { l.within = r.duration(n, path, time.Second, maxLockoutTime) },
		"duration": func(n *yaml.Node, path string) { l.duration = r.duration(n, path, time.Second, maxLockoutTime) },
	})
}

func (r *reader) limits(n *yaml.Node, path string, l *limits) {
	r.fields(n, path, map[string]func(*yaml.Node, string){
		"tokens":        func(n *yaml.Node, path string) { l.tokens = r.integer(n, path, 1, maxTokens) },
		"tokensPerUser": func(n *yaml.Node, path string) { l.tokensPerUser = r.integer(n, path, 1, maxTokens) },
		"logins": func(n *yaml.Node, path string) {
			r.fields(n, path, map[string]func(*yaml.Node, string){
				"qps":   func(n *yaml.Node, path string) { l.loginsQPS = r.number(n, path, minLoginsQPS, maxLoginsQPS) },
				"burst": func(n *yaml.Node, path string) { l.loginsBurst = r.integer(n, path, 1, maxLoginsBurst) },
			})
		},
	})
}

func (r *reader) project(n *yaml.Node, path string) projectConfig {
	p := projectConfig{line: n.Line, enabled: true}
	r.fields(n, path, map[string]func(*yaml.Node, string){
		"id":      func(n *yaml.Node, path string) { p.id = r.id(n, path) },
		"name":    func(n *yaml.Node, path string) { p.name = r.name(n, path) },
		"enabled": func(n *yaml.Node, path string) { p.enabled = r.boolean(n, path) },
		"namespaces": func(n *yaml.Node, path string) {
			r.list(n, path, func(n *yaml.Node, path string) {
				namespace := r.text(n, path)
				if faults := validation.IsDNS1123Label(namespace); namespace != "" && len(faults) > 0 {
					r.fault(n, path, "%q is not the name of a namespace: %s", namespace, faults[0])
				}
				p.namespaces = append(p.namespaces, namespace)
			})
		},
	})
	r.required(n, path, "name")
	return p
}

func (r *reader) user(n *yaml.Node, path string) userConfig {
	u := userConfig{line: n.Line, enabled: true}
	r.fields(n, path, map[string]func(*yaml.Node, string){
		"id":      func(n *yaml.Node, path string) { u.id = r.id(n, path) },
		"name":    func(n *yaml.Node, path string) { u.name = r.name(n, path) },
		"enabled": func(n *yaml.Node, path string) { u.enabled = r.boolean(n, path) },
		"passwordHash": func(n *yaml.Node, path string) {
			text := r.text(n, path)
			var err error
			if u.password, err = parseHash(text); err != nil && text != "" {
				r.fault(n, path, "%v", err)
			}
		},
		"roles": func(n *yaml.Node, path string) {
			r.list(n, path, func(n *yaml.Node, path string) { u.roles = append(u.roles, r.assignment(n, path)) })
		},
	})
	r.required(n, path, "name")
	r.required(n, path, "passwordHash")
	return u
}

func (r *reader) assignment(n *yaml.Node, path string) assignment {
	a := assignment{node: n, field: path}
	r.fields(n, path, map[string]func(*yaml.Node, string){
		"domain":  func(n *yaml.Node, path string) { a.domain = r.boolean(n, path) },
		"project": func(n *yaml.Node, path string) { a.projectNode, a.project = n, r.text(n, path) },
		"roles": func(n *yaml.Node, path string) {
			r.list(n, path, func(n *yaml.Node, path string) {
				role := r.name(n, path)
				if slices.Contains(a.roles, role) && role != "" {
					r.fault(n, path, "%q is there already", role)
				}
				a.roles = append(a.roles, role)
			})
		},
	})
	if a.domain == (a.projectNode != nil) && n.Kind == yaml.MappingNode {
		r.fault(n, path, "must have either project, the name of one, or domain: true")
	}
	r.required(n, path, "roles")
	return a
}

// required notes that a mapping lacks a key, or has it without a value.
func (r *reader) required(n *yaml.Node, path, key string) {
	if n.Kind != yaml.MappingNode {
		return // a fault already
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		if value := n.Content[i+1]; isNull(value) || value.Kind == yaml.SequenceNode && len(value.Content) == 0 {
			r.fault(value, path+"."+key, "must not be empty")
		}
		return
	}
	r.fault(n, path+"."+key, "is required")
}

// name reads a name. Groups are made of names with colons between them, and those of the server's
// own begin with system: so names have no colons.
func (r *reader) name(n *yaml.Node, path string) string {
	name, ok := r.scalar(n, path, "a string; write it in quotes if it is one", "!!str")
	switch {
	case !ok:
		return ""
	case name == "" || len(name) > maxNameBytes:
		r.fault(n, path, "must have 1 to %d bytes", maxNameBytes)
	case strings.Contains(name, ":"):
		r.fault(n, path, "%q must not have a colon, and so not begin with system: either", name)
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl):
		r.fault(n, path, "%q must not begin or end with a space, or have control characters", name)
	default:
		return name
	}
	return ""
}

func (r *reader) id(n *yaml.Node, path string) string {
	id := r.text(n, path)
	if _, ok := parseID(id); !ok {
		r.fault(n, path, "must be 32 lower-case hexadecimal digits")
		return ""
	}
	return id
}

func (r *reader) url(n *yaml.Node, path string) string {
	text := r.text(n, path)
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		r.fault(n, path, "must be a URL without a path, such as https://registry.example.com:6443")
		return ""
	}
	return u.Scheme + "://" + u.Host
}
