// Package test holds what is checked of the repository as a whole.
package test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/test/harness"
)

const module = "github.com/berth-project/berth"

// importRule says what the packages of one folder may import. It speaks of the code
// itself: tests put together whatever they need.
type importRule struct {
	// folder covers the packages in it and below it, except those that a longer folder
	// covers.
	folder string
	// ours are the folders of this module that may be imported. Packages of the rule's own
	// folder may always import each other.
	ours []string
	// stdlibOnly forbids every package of another module.
	stdlibOnly bool
	// http allows net/http.
	http bool
	// etcd allows go.etcd.io.
	etcd bool
	// upstream is the only package of kube-apiserver's own modules that may be imported.
	upstream string
}

// auditTypes are kube-apiserver's types of audit policies and events.
const auditTypes = "k8s.io/apiserver/pkg/apis/audit/v1"

var importRules = []importRule{
	{folder: "cmd/apiserver", ours: []string{
		"cmd/apiserver/internal", "pkg/apiserver", "pkg/serving", "pkg/certificates", "pkg/files", "pkg/audit", "pkg/auth", "pkg/ratelimit",
	}},
	// The commands besides the server: they know what it leaves in the data directory, not how
	// it runs.
	{folder: "cmd/apiserver/internal/commands", http: true, etcd: true, ours: []string{
		"cmd/apiserver/internal/backend", "cmd/apiserver/internal/cli", "cmd/apiserver/internal/datadir",
		"pkg/apiserver", "pkg/auth", "pkg/certificates", "pkg/files", "pkg/storage/embedded", "pkg/storage/snapshot",
	}},
	{folder: "cmd/apiserver/internal/backend", etcd: true, ours: []string{
		"cmd/apiserver/internal/cli", "cmd/apiserver/internal/datadir", "pkg/storage/etcd", "pkg/storage/embedded",
	}},
	{folder: "cmd/apiserver/internal/datadir", ours: []string{"pkg/auth", "pkg/certificates", "pkg/files"}},
	{folder: "cmd/apiserver/internal/cli"},
	{folder: "cmd/loadtest", ours: []string{"cmd/loadtest/internal"}},
	{folder: "cmd/loadtest/internal/client", http: true, ours: []string{"cmd/loadtest/internal/text"}},
	{folder: "cmd/loadtest/internal/load", http: true, ours: []string{
		"cmd/loadtest/internal/client", "cmd/loadtest/internal/report", "cmd/loadtest/internal/schedule",
	}},
	{folder: "cmd/loadtest/internal/report", ours: []string{"cmd/loadtest/internal/schedule", "cmd/loadtest/internal/text"}},
	{folder: "cmd/loadtest/internal/schedule", stdlibOnly: true},
	{folder: "cmd/loadtest/internal/text", stdlibOnly: true},
	// The wiring: the only one that knows server, registry and storage.
	{folder: "pkg/apiserver", etcd: true, ours: []string{
		"pkg/server", "pkg/registry", "pkg/registry/mirroring", "pkg/registry/resources", "pkg/registry/reviews", "pkg/object", "pkg/audit", "pkg/auth", "pkg/ratelimit", "pkg/ratelimit/cluster",
		"pkg/storage", "pkg/storage/etcd",
	}},
	// Connections, whatever is served on them.
	{folder: "pkg/serving", http: true},
	{folder: "pkg/certificates", ours: []string{"pkg/files"}},
	// A directory is locked as etcd locks its own.
	{folder: "pkg/files", etcd: true},
	{folder: "pkg/server", http: true, ours: []string{
		"pkg/server/media", "pkg/server/stream", "pkg/server/discovery", "pkg/server/feeds", "pkg/server/forwarded", "pkg/server/health", "pkg/server/identity", "pkg/server/metrics", "pkg/server/requestinfo", "pkg/server/share", "pkg/server/shutdown", "pkg/server/websocket", "pkg/object", "pkg/audit", "pkg/auth", "pkg/ratelimit",
	}},
	{folder: "pkg/server/media", http: true, ours: []string{"pkg/object", "pkg/server/stream", "pkg/yamljson"}},
	{folder: "pkg/server/stream", http: true, ours: []string{"pkg/object"}},
	{folder: "pkg/server/discovery"},
	{folder: "pkg/server/feeds", ours: []string{"pkg/object", "pkg/server/stream"}},
	{folder: "pkg/server/forwarded", http: true},
	{folder: "pkg/server/health", http: true},
	{folder: "pkg/server/identity", http: true, ours: []string{"pkg/auth", "pkg/auth/iam", "pkg/ratelimit"}},
	{folder: "pkg/server/metrics", http: true},
	{folder: "pkg/server/requestinfo", http: true, ours: []string{"pkg/auth"}},
	{folder: "pkg/server/share"},
	{folder: "pkg/server/shutdown", http: true},
	{folder: "pkg/server/websocket", http: true},
	// A stored object and its forms, whoever stores or serves it.
	{folder: "pkg/object"},
	// The registry keeps its objects in the cache, whose type parameter they are, and its
	// errors are Statuses, whose codes are HTTP's.
	{folder: "pkg/registry", http: true, ours: []string{
		"pkg/object", "pkg/storage", "pkg/storage/cache", "pkg/yamljson", "pkg/registry/mirror", "pkg/registry/mirroring", "pkg/registry/patch", "pkg/registry/ownership",
	}},
	// The catalogue: rules of resources, which know the registry alone.
	{folder: "pkg/registry/resources", ours: []string{"pkg/registry", "pkg/registry/reviews"}},
	// Pure: what they are given decides what they return.
	{folder: "pkg/registry/patch", http: true, ours: []string{"pkg/yamljson"}},
	{folder: "pkg/registry/ownership"},
	{folder: "pkg/registry/mirror"},
	// Three stores kept in step, which it knows by an interface of its own.
	{folder: "pkg/registry/mirroring", ours: []string{
		"pkg/object", "pkg/storage", "pkg/registry/apierr", "pkg/registry/capacity", "pkg/registry/lifecycle", "pkg/registry/mirror", "pkg/registry/objectmeta", "pkg/registry/ownership",
	}},
	// Answers about users, which nothing is stored of.
	{folder: "pkg/registry/reviews", http: true, ours: []string{"pkg/object", "pkg/auth", "pkg/registry/ownership"}},
	{folder: "pkg/storage", stdlibOnly: true},
	{folder: "pkg/storage/etcd", etcd: true, ours: []string{"pkg/storage"}},
	{folder: "pkg/storage/cache", ours: []string{"pkg/storage"}},
	{folder: "pkg/storage/embedded", etcd: true, ours: []string{"pkg/storage", "pkg/storage/snapshot", "pkg/files"}},
	{folder: "pkg/storage/snapshot", etcd: true, ours: []string{"pkg/files"}},
	// What is recorded is taken from requests as they came.
	{folder: "pkg/audit", http: true, ours: []string{"pkg/auth", "pkg/yamljson"}, upstream: auditTypes},
	{folder: "pkg/auth"},
	// Roles and bindings: pure, whoever feeds them.
	{folder: "pkg/auth/rbac", ours: []string{"pkg/auth"}},
	// The token service, whose tokens are in the store.
	{folder: "pkg/auth/iam", ours: []string{"pkg/auth", "pkg/storage"}},
	{folder: "pkg/ratelimit"},
	// Buckets in the store, whichever it is.
	{folder: "pkg/ratelimit/cluster", ours: []string{"pkg/ratelimit", "pkg/storage"}},
	{folder: "pkg/yamljson"},
	{folder: "test", http: true, ours: []string{"pkg", "pkg/storage/embedded"}},
	{folder: "tools", http: true, ours: []string{"pkg", "test"}},
}

// implementations of contracts are imported only where a rule names them, not
// with the folder that they are in.
var implementations = []string{"pkg/storage/etcd", "pkg/storage/cache", "pkg/storage/embedded", "pkg/ratelimit/cluster"}

// TestImports holds every package against the rule of its folder: storage knows bytes and
// revisions, the registry knows objects, the server knows HTTP.
func TestImports(t *testing.T) {
	edges := readImports(t)
	if len(edges) == 0 {
		t.Fatal("no package was found")
	}
	for _, e := range edges {
		if fault := checkImport(e.from, e.to); fault != "" {
			t.Errorf("%s imports %s: %s", e.from, e.to, fault)
		}
	}
}

func TestCheckImport(t *testing.T) {
	tests := []struct{ from, to, want string }{
		{"cmd/apiserver", module + "/cmd/apiserver/internal/backend", ""},
		{"cmd/apiserver", module + "/pkg/storage/embedded", "cmd/apiserver may not import pkg/storage/embedded"},
		{"cmd/apiserver/internal/backend", module + "/pkg/storage/embedded", ""},
		{"cmd/apiserver/internal/commands", module + "/pkg/serving", "cmd/apiserver/internal/commands may not import pkg/serving"},
		{"cmd/apiserver/internal/cli", "net/http", "cmd/apiserver/internal/cli may not know HTTP"},
		{"cmd/loadtest", module + "/cmd/loadtest/internal/report", ""},
		{"cmd/loadtest", module + "/pkg/auth", "cmd/loadtest may not import pkg/auth"},
		{"cmd/loadtest/internal/report", module + "/cmd/loadtest/internal/load", "cmd/loadtest/internal/report may not import cmd/loadtest/internal/load"},
		{"cmd/loadtest/internal/report", "net/http", "cmd/loadtest/internal/report may not know HTTP"},
		{"pkg/server", module + "/pkg/ratelimit", ""},
		{"pkg/ratelimit/cluster", module + "/pkg/storage", ""},
		{"pkg/ratelimit/cluster", module + "/pkg/storage/etcd", "pkg/ratelimit/cluster may not import pkg/storage/etcd"},
		{"pkg/ratelimit", module + "/pkg/storage", "pkg/ratelimit may not import pkg/storage"},
		{"pkg/server", module + "/pkg/object", ""},
		{"pkg/object", module + "/pkg/storage", "pkg/object may not import pkg/storage"},
		{"pkg/object", "net/http", "pkg/object may not know HTTP"},
		{"pkg/server/stream", module + "/pkg/auth", "pkg/server/stream may not import pkg/auth"},
		{"cmd/apiserver", module + "/pkg/serving", ""},
		{"cmd/apiserver", module + "/pkg/registry", "cmd/apiserver may not import pkg/registry"},
		{"pkg/apiserver", module + "/pkg/registry/resources/endpoints", ""},
		{"pkg/apiserver", module + "/pkg/storage/embedded", "pkg/apiserver may not import pkg/storage/embedded"},
		{"pkg/server", module + "/pkg/apiserver", "pkg/server may not import pkg/apiserver"},
		{"pkg/serving", module + "/pkg/server", "pkg/serving may not import pkg/server"},
		{"pkg/server", module + "/pkg/registry", "pkg/server may not import pkg/registry"},
		{"pkg/server", module + "/pkg/storage", "pkg/server may not import pkg/storage"},
		{"pkg/server", "go.etcd.io/etcd/client/v3", "pkg/server may not know etcd"},
		{"pkg/registry/mirror", module + "/pkg/registry/resources/network", "pkg/registry/mirror may not import pkg/registry/resources/network"},
		{"pkg/registry/mirroring", module + "/pkg/storage/cache", "pkg/registry/mirroring may not import pkg/storage/cache"},
		{"pkg/registry", module + "/pkg/server", "pkg/registry may not import pkg/server"},
		{"pkg/auth", "net/http", "pkg/auth may not know HTTP"},
		{"pkg/auth", module + "/pkg/auth/rbac", "pkg/auth may not import pkg/auth/rbac"},
		{"pkg/auth/rbac", module + "/pkg/registry", "pkg/auth/rbac may not import pkg/registry"},
		{"pkg/storage", "net/http", "pkg/storage may not know HTTP"},
		{"pkg/registry/resources/endpoints", module + "/pkg/registry", ""},
		{"pkg/registry/resources/leases", module + "/pkg/storage", "pkg/registry/resources may not import pkg/storage"},
		{"pkg/registry/resources", module + "/pkg/registry/ownership", ""},
		{"pkg/registry/resources", module + "/pkg/server", "pkg/registry/resources may not import pkg/server"},
		{"pkg/registry", module + "/pkg/registry/resources", "pkg/registry may not import pkg/registry/resources"},
		{"pkg/server", module + "/pkg/registry/resources", "pkg/server may not import pkg/registry/resources"},
		{"pkg/registry", module + "/pkg/storage/etcd", "pkg/registry may not import pkg/storage/etcd"},
		{"pkg/storage", "golang.org/x/time/rate", "pkg/storage may import the standard library alone"},
		{"pkg/storage", "context", ""},
		{"pkg/storage/etcd", module + "/pkg/storage/embedded", "pkg/storage/etcd may not import pkg/storage/embedded"},
		{"pkg/auth", module + "/pkg/ratelimit", "pkg/auth may not import pkg/ratelimit"},
		{"pkg/fifth", "context", "no import rule covers pkg/fifth"},
		{"cmd/apiserver", "k8s.io/apiserver/pkg/server", "k8s.io/apiserver is what this project does itself"},
		{"pkg/audit", auditTypes, ""},
		{"pkg/audit", "k8s.io/apiserver/pkg/audit", "k8s.io/apiserver is what this project does itself"},
		{"pkg/server", auditTypes, "k8s.io/apiserver is what this project does itself"},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, checkImport(test.from, test.to)); diff != "" {
			t.Errorf("%s imports %s (-want +got)\n%s", test.from, test.to, diff)
		}
	}
}

// checkImport returns what is wrong with the package in the folder from importing the
// path to, "" where nothing is.
func checkImport(from, to string) string {
	rule := ruleFor(from)
	if rule == nil {
		return "no import rule covers " + from
	}
	first, _, _ := strings.Cut(to, "/")
	ours, isOurs := strings.CutPrefix(to, module+"/")
	switch {
	case isOurs && !rule.allows(ours):
		return fmt.Sprintf("%s may not import %s", rule.folder, ours)
	case isOurs:
		return ""
	case to == rule.upstream:
		return ""
	case within(to, "k8s.io/apiserver"), within(to, "k8s.io/kubernetes"):
		return strings.Join(strings.Split(to, "/")[:2], "/") + " is what this project does itself"
	case rule.stdlibOnly && strings.Contains(first, "."):
		return rule.folder + " may import the standard library alone"
	case within(to, "net/http") && !rule.http:
		return rule.folder + " may not know HTTP"
	case first == "go.etcd.io" && !rule.etcd:
		return rule.folder + " may not know etcd"
	}
	return ""
}

func ruleFor(folder string) *importRule {
	var best *importRule
	for i, rule := range importRules {
		if within(folder, rule.folder) && (best == nil || len(rule.folder) > len(best.folder)) {
			best = &importRules[i]
		}
	}
	return best
}

func (r *importRule) allows(folder string) bool {
	if owner := ruleFor(folder); owner != nil && owner.folder == r.folder {
		return true
	}
	if slices.Contains(implementations, folder) {
		return slices.Contains(r.ours, folder)
	}
	return slices.ContainsFunc(r.ours, func(allowed string) bool { return within(folder, allowed) })
}

// within reports whether path is folder or below it.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// isModule reports whether a module of its own begins in the directory.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

type edge struct{ from, to string }

// readImports returns the imports of all packages but of their tests, whatever the build
// tags, each once.
func readImports(t *testing.T) []edge {
	t.Helper()
	var edges []edge
	root := harness.Root()
	for _, top := range []string{"cmd", "pkg", "test", "tools"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && (entry.Name() == "testdata" || isModule(path)) {
				return filepath.SkipDir
			}
			if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			from, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			for _, spec := range file.Imports {
				to, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				if e := (edge{filepath.ToSlash(from), to}); !slices.Contains(edges, e) {
					edges = append(edges, e)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return edges
}
