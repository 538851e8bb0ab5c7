package clients

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKubectlCreate(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	file := k.manifest("one", "10.0.0.1", "app=x")
	k.run("create", "-f", file, "--dry-run=server").ok("endpoints/one created (server dry run)")
	k.run("create", "-f", file, "--dry-run=server", "-o", "jsonpath={.metadata.name} {.subsets[0].ports[0].protocol}").ok("one TCP")
	k.run("get", "ep", "one").fails("NotFound")
	k.run("create", "-f", file, "-o", "name").ok("endpoints/one")
	k.run("create", "-f", file).ended(1, "", `Error from server (AlreadyExists): error when creating "`+file+`": endpoints "one" already exists`)
	k.runWith(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"bad"},"subsets":[{"addresses":[{"ip":"127.0.0.1"}]}]}`, "create", "-f", "-").
		ended(1, "", `The Endpoints "bad" is invalid: subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`)
	k.runWith(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"bad"},"bogus":1}`, "create", "-f", "-").
		ended(1, "", `Error from server (BadRequest): error when creating "STDIN": Endpoints in version "v1" cannot be handled as a Endpoints: strict decoding error: unknown field "bogus"`)
	k.runWith(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"warned"},"bogus":1}`, "create", "-f", "-", "--validate=warn").
		ended(0, "endpoints/warned created", `Warning: unknown field "bogus"`)
	k.runWith(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"ignored"},"bogus":1}`, "create", "-f", "-", "--validate=ignore").
		ok("endpoints/ignored created")
	k.runWith(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"generateName":"made-"}}`, "create", "-f", "-").contains("endpoints/made-")
	k.run("create", "namespace", k.namespace).ended(1, "", `Error from server (AlreadyExists): namespaces "NS" already exists`)
	k.run("create", "-f", file, "--namespace=nowhere-to-be-found").fails(`Error from server (NotFound): error when creating "` + file + `": namespaces "nowhere-to-be-found" not found`)
}

// Client-side apply, with its pruning by label.
func TestKubectlApply(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	first, second := k.manifest("first", "10.0.0.1", "app=x"), k.manifest("second", "10.0.0.2", "app=x")
	k.run("apply", "-f", first, "--dry-run=server").ok("endpoints/first created (server dry run)")
	k.run("apply", "-f", first, "-f", second).ok("endpoints/first created", "endpoints/second created")
	k.run("apply", "-f", first).ok("endpoints/first unchanged")
	k.create("other", "10.0.0.3", "app=x")
	k.create("elsewhere", "10.0.0.3", "app=y")

	changed := k.manifest("first", "10.0.0.9", "app=x")
	k.run("apply", "-f", changed, "--dry-run=server").ok("endpoints/first configured (server dry run)")
	k.run("get", "ep", "first", "-o", "jsonpath={.subsets[0].addresses[0].ip}").ok("10.0.0.1")
	k.run("apply", "-f", changed, "--prune", "-l", "app=x", "--prune-allowlist=core/v1/Endpoints").
		contains("endpoints/first configured", "endpoints/second pruned")
	// Only what apply made is pruned.
	k.run("get", "ep", "-o", "name").ok("endpoints/elsewhere", "endpoints/first", "endpoints/other")
	k.run("get", "ep", "first", "-o", "jsonpath={.subsets[0].addresses[0].ip}").ok("10.0.0.9")
	k.run("apply", "view-last-applied", "ep/first").contains("ip: 10.0.0.9")
}

func TestKubectlServerSideApply(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	file := k.manifest("one", "10.0.0.1", "app=x")
	k.run("apply", "--server-side", "-f", file, "--dry-run=server").ok("endpoints/one serverside-applied (server dry run)")
	k.run("get", "ep").ended(0, "", "No resources found in NS namespace.")
	k.run("apply", "--server-side", "-f", file).ok("endpoints/one serverside-applied")

	other := k.manifest("one", "10.0.0.2")
	k.run("apply", "--server-side", "--field-manager=other", "-f", other).
		fails(`error: Apply failed with 1 conflict: conflict with "kubectl": .subsets`).
		fails("Please review the fields above--they currently have other managers.")
	k.run("get", "ep", "one", "-o", "jsonpath={.subsets[0].addresses[0].ip}").ok("10.0.0.1")
	k.run("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", other).ok("endpoints/one serverside-applied")
	k.run("get", "ep", "one", "-o", "jsonpath={.subsets[0].addresses[0].ip} {.metadata.managedFields[*].manager}").ok("10.0.0.2 kubectl other")
	k.run("apply", "--server-side", "-f", k.manifest("one", "10.0.0.2", "app=y")).ok("endpoints/one serverside-applied")

	// An object that client-side apply made, and nobody else changed, is taken over.
	k.run("apply", "-f", k.manifest("old", "10.0.0.1")).ok("endpoints/old created")
	k.run("apply", "--server-side", "--field-manager=other", "-f", k.manifest("old", "10.0.0.5")).fails(`conflict with "kubectl-client-side-apply" using v1: .subsets`)
	k.run("apply", "--server-side", "-f", k.manifest("old", "10.0.0.1", "app=x")).ok("endpoints/old serverside-applied")
	k.run("apply", "--server-side", "-f", k.manifest("old", "10.0.0.5")).ok("endpoints/old serverside-applied")
	k.run("get", "ep", "old", "-o", "jsonpath={.subsets[0].addresses[0].ip} {.metadata.labels}{.metadata.managedFields[*].manager}").ok("10.0.0.5 kubectl-last-applied kubectl")
}

func TestKubectlDiff(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	file := k.manifest("one", "10.0.0.1")
	k.run("apply", "-f", file).ok("endpoints/one created")
	k.run("diff", "-f", file).ok()
	k.run("diff", "--server-side", "--force-conflicts", "-f", file).fails("")
	changed := k.run("diff", "-f", k.manifest("one", "10.0.0.2")).fails("")
	changed.code = 0 // 1 says that there is a difference
	changed.contains("- - ip: 10.0.0.1\n+ - ip: 10.0.0.2")
	k.run("diff", "-f", k.manifest("new", "10.0.0.2")).fails("")
	k.run("get", "ep", "-o", "name").ok("endpoints/one")
}

func TestKubectlEdit(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("one", "10.0.0.1")
	editor := func(script string) {
		path := k.file("editor", "#!/bin/sh\nsed -i '"+script+"' \"$1\"\n")
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
		k.env = []string{"KUBE_EDITOR=" + path, "TMPDIR=" + t.TempDir()}
	}
	editor("s/10.0.0.1/10.0.0.7/")
	k.run("edit", "ep", "one").ok("endpoints/one edited")
	k.run("get", "ep", "one", "-o", "jsonpath={.subsets[0].addresses[0].ip}").ok("10.0.0.7")
	k.run("edit", "ep", "one").ended(0, "", "Edit cancelled, no changes made.")
	editor("s/10.0.0.7/10.0.0.8/")
	k.run("edit", "ep", "one", "--output-patch", "-o", "json").contains(`Patch: {"subsets":[`)
	k.run("get", "ep", "one", "-o", "jsonpath={.subsets[0].addresses[0].ip}").ok("10.0.0.8")
	editor("s/10.0.0.8/127.0.0.1/")
	k.run("edit", "ep", "one").fails(`error: endpoints "one" is invalid`)
	k.run("get", "ep", "one", "-o", "jsonpath={.subsets[0].addresses[0].ip}").ok("10.0.0.8")
}

func TestKubectlPatch(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("one", "10.0.0.1")
	k.run("patch", "ep", "one", "--type=json", "-p", `[{"op":"replace","path":"/subsets/0/ports/0/port","value":81}]`).ok("endpoints/one patched")
	k.run("patch", "ep", "one", "--type=merge", "-p", `{"metadata":{"labels":{"app":"x","gone":null}}}`).ok("endpoints/one patched")
	k.run("patch", "ep", "one", "--type=merge", "-p", `{"metadata":{"labels":{"app":"x"}}}`).ok("endpoints/one patched (no change)")
	k.run("patch", "ep", "one", "-p", `{"metadata":{"labels":{"tier":"y"}}}`).ok("endpoints/one patched")
	k.run("patch", "ep", "one", "-p", `{"metadata":{"labels":{"tier":"z"}}}`, "--dry-run=server").ok("endpoints/one patched")
	k.run("get", "ep", "one", "-o", "jsonpath={.subsets[0].ports[0].port} {.metadata.labels.app} {.metadata.labels.tier}").ok("81 x y")
	k.run("patch", "ep", "one", "--type=json", "-p", `[{"op":"test","path":"/metadata/name","value":"other"}]`).fails("the server rejected our request due to an error in our request")
	k.run("patch", "ep", "one", "-p", `{"metadata":{"bogus":1}}`).ended(0, "endpoints/one patched (no change)", `Warning: unknown field "metadata.bogus"`)
	k.run("patch", "ep", "none", "-p", `{}`).ended(1, "", `Error from server (NotFound): endpoints "none" not found`)
}

func TestKubectlLabelAnnotate(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("one", "10.0.0.1")
	k.create("two", "10.0.0.2")
	k.run("label", "ep", "--all", "app=x").ok("endpoints/one labeled", "endpoints/two labeled")
	k.run("label", "ep", "one", "app=x").ok("endpoints/one not labeled")
	k.run("label", "ep", "one", "app=y").ended(1, "", "error: 'app' already has a value (x), and --overwrite is false")
	k.run("label", "ep", "one", "app=y", "--overwrite").ok("endpoints/one labeled")
	k.run("label", "ep", "one", "app=z", "--overwrite", "--resource-version=1").fails("the object has been modified")
	k.run("label", "ep", "one", "--list").ok("app=y")
	k.run("label", "ep", "one", "app-").ok("endpoints/one unlabeled")
	k.run("label", "ep", "one", "app=not a label").fails("invalid label")
	k.run("annotate", "ep", "one", "note=text").ok("endpoints/one annotated")
	k.run("annotate", "ep", "-l", "app=x", "note=text").ok("endpoints/two annotated")
	k.run("annotate", "ep", "one", "note-", "--dry-run=server").ok("endpoints/one annotated (server dry run)")
	k.run("get", "ep", "-o", "jsonpath={.items[*].metadata.annotations.note}").ok("text text")
}

func TestKubectlReplace(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("one", "10.0.0.1")
	old := k.run("get", "ep", "one", "-o", "yaml").contains("kind: Endpoints").stdout
	k.run("replace", "-f", k.manifest("one", "10.0.0.2")).ok("endpoints/one replaced")
	k.runWith(old, "replace", "-f", "-").ended(1, "", `Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on endpoints "one": the object has been modified; please apply your changes to the latest version and try again`)
	k.run("replace", "-f", k.manifest("one", "10.0.0.3"), "--dry-run=server").ok("endpoints/one replaced (server dry run)")
	k.run("get", "ep", "one", "-o", "jsonpath={.subsets[0].addresses[0].ip}").ok("10.0.0.2")
	k.run("replace", "--force", "-f", k.manifest("one", "10.0.0.3")).ok(`endpoints "one" deleted from NS namespace`, "endpoints/one replaced")
	k.run("replace", "-f", k.manifest("new", "10.0.0.3")).ok("endpoints/new replaced")
}

// unscoped is what kubectl says of --namespace where it has no meaning.
const unscoped = "Warning: deleting cluster-scoped resources, not scoped to the provided namespace"

func TestKubectlDelete(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		k.create(name, "10.0.0.1", "name="+name)
	}
	k.run("delete", "ep", "a", "--dry-run=server").ok(`endpoints "a" deleted from NS namespace (server dry run)`)
	k.run("delete", "ep", "a").ok(`endpoints "a" deleted from NS namespace`)
	k.run("delete", "ep", "a").ended(1, "", `Error from server (NotFound): endpoints "a" not found`)
	k.run("delete", "ep", "a", "--ignore-not-found").ok()
	k.run("delete", "ep", "-l", "name=b").ok(`endpoints "b" deleted from NS namespace`)
	k.run("delete", "ep", "-l", "name=b").ended(0, "No resources found", "")
	k.run("delete", "ep", "c", "--cascade=foreground", "--wait").ok(`endpoints "c" deleted from NS namespace`)
	k.run("delete", "ep", "--all", "-o", "name").ok("endpoints/d", "endpoints/e")
	k.run("get", "ep").ended(0, "", "No resources found in NS namespace.")
	k.run("delete", "ns", "default").ended(1, "", unscoped+`
Error from server (Forbidden): namespaces "default" is forbidden: this namespace may not be deleted`)
}

// A delete that waits goes on until finalizers have let the object go.
func TestKubectlDeleteWaits(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("held", "10.0.0.1")
	k.run("patch", "ep", "held", "-p", `{"metadata":{"finalizers":["example.com/hold"]}}`).ok("endpoints/held patched")
	k.run("delete", "ep", "held", "--timeout=1s").fails("timed out waiting for the condition on endpoints/held")
	waiting := k.start("delete", "ep", "held")
	waiting.printed(`endpoints "held" deleted from NS namespace`)
	k.run("create", "-f", k.manifest("held", "10.0.0.1")).fails("object is being deleted: endpoints \"held\" already exists")
	k.run("patch", "ep", "held", "-p", `{"metadata":{"finalizers":null}}`).ok("endpoints/held patched")
	waiting.wait().ok(`endpoints "held" deleted from NS namespace`)
	k.run("get", "ep", "held").fails("NotFound")
}

// The lifetime of a namespace, with content.
func TestKubectlDeleteNamespace(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	name := k.namespace + "-more"
	k.run("create", "ns", name).ok("namespace/NS-more created")
	k.run("create", "-f", k.manifest("one", "10.0.0.1"), "--namespace="+name).ok("endpoints/one created")
	k.run("delete", "ns", name).ended(0, `namespace "NS-more" deleted`, unscoped)
	k.run("get", "ns", name).ended(1, "", `Error from server (NotFound): namespaces "NS-more" not found`)
	k.run("get", "ep", "--namespace="+name).ended(0, "", "No resources found in NS-more namespace.")
}

// Files of several objects, and a directory of them, as people keep them.
func TestKubectlDirectory(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	dir := filepath.Dir(k.manifest("one", "10.0.0.1"))
	if err := os.WriteFile(filepath.Join(dir, "two.json"), []byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"two"}},{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"three"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	k.run("apply", "-f", dir).ok("endpoints/one created", "endpoints/two created", "endpoints/three created")
	k.run("get", "-f", dir, "-o", "name").ok("endpoints/one", "endpoints/two", "endpoints/three")
	k.run("delete", "-f", dir).ok(`endpoints "one" deleted from NS namespace`, `endpoints "two" deleted from NS namespace`, `endpoints "three" deleted from NS namespace`)
}
