package clients

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestKubectlGet(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.run("get", "endpoints").ended(0, "", "No resources found in NS namespace.")
	k.run("get", "ep", "none").ended(1, "", `Error from server (NotFound): endpoints "none" not found`)
	k.run("get", "ep", "none", "--ignore-not-found").ok()
	k.run("get", "nothings").ended(1, "", `error: the server doesn't have a resource type "nothings"`)

	k.create("one", "10.0.0.1", "app=x")
	k.create("two", "10.0.0.2", "app=y")
	k.run("get", "ep").ok(
		"NAME ENDPOINTS AGE",
		"one 10.0.0.1:80 AGE",
		"two 10.0.0.2:80 AGE")
	k.run("get", "ep", "one", "-o", "wide", "--show-labels").ok(
		"NAME ENDPOINTS AGE LABELS",
		"one 10.0.0.1:80 AGE app=x")
	k.run("get", "ep", "--no-headers", "-l", "app in (y,z)").ok("two 10.0.0.2:80 AGE")
	k.run("get", "ep", "--no-headers", "--field-selector", "metadata.name!=two").ok("one 10.0.0.1:80 AGE")
	k.run("get", "ep", "--field-selector", "spec.foo=bar").fails(`Error from server (BadRequest): Unable to find "/v1, Resource=endpoints" that match label selector "", field selector "spec.foo=bar": "spec.foo" is not a known field selector: only "metadata.name", "metadata.namespace"`)
	k.run("get", "ep", "--chunk-size=1", "-o", "name").ok("endpoints/one", "endpoints/two")
	k.run("get", "ep", "one", "two", "-o", "name").ok("endpoints/one", "endpoints/two")
	k.run("get", "ep", "-o", "jsonpath={.items[*].subsets[0].addresses[0].ip}").ok("10.0.0.1 10.0.0.2")
	k.run("get", "ep", "-o", "custom-columns=N:.metadata.name,IP:.subsets[*].addresses[*].ip", "--sort-by=.metadata.name").ok(
		"N IP",
		"one 10.0.0.1",
		"two 10.0.0.2")
	k.run("get", "ep", "-o", "go-template={{range .items}}{{.metadata.name}}.{{end}}").ok("one.two.")
	k.run("get", "ep", "-A", "-l", "app in (x,y)", "--field-selector=metadata.namespace="+k.namespace).ok(
		"NAMESPACE NAME ENDPOINTS AGE",
		"NS one 10.0.0.1:80 AGE",
		"NS two 10.0.0.2:80 AGE")
	k.run("get", "ns", k.namespace).ok("NAME STATUS AGE", "NS Active AGE")
	k.run("get", "--raw", "/api/v1/namespaces/"+k.namespace+"/endpoints/one").contains(`"kind":"Endpoints"`, `"name":"one"`)
	k.checkObjectFormats()
}

// Kinds that are not served are told as such, beside those that are.
func TestKubectlWithKindsThatAreNotServed(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	const manifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {a: b}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]
`
	const unknown = `no matches for kind "ConfigMap" in version "v1"`
	for _, args := range [][]string{{"apply", "-f", "-"}, {"apply", "--server-side", "--force-conflicts", "-f", "-"}} {
		if r := k.runWith(manifest, args...); r.code != 1 || !strings.Contains(r.stderr, unknown) || strings.Contains(r.stderr, "validate=false") || !strings.Contains(r.stdout, "endpoints/web ") {
			t.Errorf("%s: got %d %q, %q", r.command, r.code, r.stdout, r.stderr)
		}
	}
	k.run("get", "ep", "web", "--no-headers").ok("web 10.0.0.1:80 AGE")
	k.run("cluster-info").contains("Kubernetes control plane", "is running at")
	k.run("get", "configmaps").fails(`error: the server doesn't have a resource type "configmaps"`)
}

// kubectl says who its user is, and shows the index.
func TestKubectlWhoAmI(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").ok("admin")
	k.run("get", "--raw", "/").contains(`"/apis/authentication.k8s.io/v1"`)
}

// checkObjectFormats checks that JSON and YAML are the same object.
func (k *kubectl) checkObjectFormats() {
	k.t.Helper()
	var fromJSON, fromYAML corev1.Endpoints
	if err := json.Unmarshal([]byte(k.run("get", "ep", "one", "-o", "json").contains("{").stdout), &fromJSON); err != nil {
		k.t.Error(err)
	}
	if err := yaml.UnmarshalStrict([]byte(k.run("get", "ep", "one", "-o", "yaml").contains("apiVersion: v1").stdout), &fromYAML); err != nil {
		k.t.Error(err)
	}
	if diff := cmp.Diff(fromJSON, fromYAML); diff != "" || fromJSON.UID == "" || fromJSON.Kind != "Endpoints" {
		k.t.Errorf("get -o yaml differs from -o json %+v (-json +yaml):\n%s", fromJSON, diff)
	}
}

// More endpoints than a table shows.
func TestKubectlGetMany(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	file := k.file("many.yaml", `
apiVersion: v1
kind: Endpoints
metadata: {name: many}
subsets:
- addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]
  notReadyAddresses: [{ip: 10.0.0.3}]
  ports: [{name: a, port: 80}, {name: b, port: 81}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: no-ports}
subsets: [{addresses: [{ip: "2001:db8::1"}]}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: none}
`)
	k.run("create", "-f", file).ok("endpoints/many created", "endpoints/no-ports created", "endpoints/none created")
	k.run("get", "-f", file).ok(
		"NAME ENDPOINTS AGE",
		"many 10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... AGE",
		"no-ports 2001:db8::1 AGE",
		"none <none> AGE")
}

func TestKubectlWatch(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("one", "10.0.0.1", "app=x")
	plainWatch := k.start("get", "ep", "-w")
	watching := k.start("get", "ep", "-w", "--output-watch-events")
	only := k.start("get", "ep", "--watch-only", "-l", "app=x", "-o", "jsonpath={.metadata.name}:{.metadata.labels.app}{\"\\n\"}")
	plainWatch.printed("NAME ENDPOINTS AGE\none 10.0.0.1:80 AGE")
	watching.printed("EVENT NAME ENDPOINTS AGE\nADDED one 10.0.0.1:80 AGE")

	// Its list tells nothing: change a label until it is seen.
	k.untilPrinted(only, "one:x")
	k.run("label", "ep", "one", "app=y", "--overwrite").ok("endpoints/one labeled")
	watching.printed("MODIFIED one 10.0.0.1:80 AGE")
	k.run("delete", "ep", "one").ok(`endpoints "one" deleted from NS namespace`)
	watching.printed("DELETED one 10.0.0.1:80 AGE")
	plainWatch.printed("one 10.0.0.1:80 AGE\none 10.0.0.1:80 AGE")
	if text := only.out.String(); strings.Contains(text, "one:y") {
		t.Errorf("%s printed an object that the selector leaves out: %q", only.command, text)
	}
}

// untilPrinted changes an annotation of the object "one" until the watch tells of it.
func (k *kubectl) untilPrinted(b *background, text string) {
	k.t.Helper()
	for i := 0; !strings.Contains(b.out.String(), text); i++ {
		if i == 50 {
			k.t.Fatalf("%s printed %q, not %q", b.command, b.out.String(), text)
		}
		k.run("annotate", "ep", "one", fmt.Sprintf("change=%d", i), "--overwrite").contains("annotated")
	}
}

func TestKubectlDescribe(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("one", "10.0.0.1", "app=x")
	k.run("annotate", "ep", "one", "note=text").ok("endpoints/one annotated")
	k.run("describe", "ep", "one").contains(
		"Name: one\nNamespace: NS\nLabels: app=x\nAnnotations: note: text\nSubsets:\nAddresses: 10.0.0.1\nNotReadyAddresses: <none>\nPorts:\nName Port Protocol\n---- ---- --------\nhttp 80 TCP")
	k.run("describe", "ep", "-l", "app=x").contains("Name: one")
	k.run("describe", "ns", k.namespace).contains("Name: NS\nLabels: kubernetes.io/metadata.name=NS\nAnnotations: <none>\nStatus: Active")
	k.run("describe", "ep", "none").fails(`Error from server (NotFound): endpoints "none" not found`)
}

func TestKubectlWait(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.create("one", "10.0.0.1")
	k.run("wait", "ep/one", "--for=jsonpath={.subsets[0].addresses[0].ip}=10.0.0.1", "--timeout=30s").ok("endpoints/one condition met")
	k.run("wait", "ep/one", "--for=jsonpath={.metadata.labels.ready}=yes", "--timeout=1s").ended(1, "", "error: timed out waiting for the condition on endpoints/one")

	ready := k.start("wait", "ep/one", "--for=jsonpath={.metadata.labels.ready}=yes", "--timeout=60s")
	gone := k.start("wait", "ep/one", "--for=delete", "--timeout=60s")
	k.run("label", "ep", "one", "ready=yes").ok("endpoints/one labeled")
	ready.wait().ok("endpoints/one condition met")
	k.run("delete", "ep", "one", "--wait=false").ok(`endpoints "one" deleted from NS namespace`)
	gone.wait().ok("endpoints/one condition met")
	k.run("wait", "ep/one", "--for=delete").ok()
	k.run("wait", "ep/one", "--for=create", "--timeout=1s").fails("timed out waiting for the condition")
}
