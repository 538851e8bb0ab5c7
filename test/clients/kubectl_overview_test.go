package clients

import (
	"strings"
	"testing"
)

// kubectl shows in one view what is registered: the Service, its Endpoints and slices, and what was
// reported of it.
func TestKubectlOverview(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	const manifest = `
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  clusterIP: None
  ports: [{name: metrics, port: 9100}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, labels: {endpointslice.kubernetes.io/skip-mirror: "true"}}
subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{name: metrics, port: 9100}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: metrics, port: 9100}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, hostname: vm-1}]
`
	k.runWith(manifest, "create", "-f", "-").ok("service/web created", "endpoints/web created", "endpointslice.discovery.k8s.io/web-1 created")
	uid := k.run("get", "svc", "web", "-o", "jsonpath={.metadata.uid}").stdout
	event := strings.NewReplacer("NS", k.namespace, "UID", uid).Replace(`
apiVersion: v1
kind: Event
metadata: {name: web.1}
involvedObject: {apiVersion: v1, kind: Service, name: web, namespace: NS, uid: UID}
type: Warning
reason: Probed
message: it does not answer
source: {component: prober}
firstTimestamp: "2026-01-02T03:04:05Z"
lastTimestamp: "2026-01-02T04:04:05Z"
count: 3
`)
	k.runWith(event, "create", "-f", "-").ok("event/web.1 created")

	k.run("get", "svc,ep,endpointslices,events", "-o", "wide").contains(
		"NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR\nservice/web ClusterIP None <none> 9100/TCP AGE <none>",
		"NAME ENDPOINTS AGE\nendpoints/web 10.0.0.1:9100 AGE",
		"NAME ADDRESSTYPE PORTS ENDPOINTS AGE\nendpointslice.discovery.k8s.io/web-1 IPv4 9100 10.0.0.1 AGE",
		"LAST SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST SEEN COUNT NAME", "Warning Probed service/web prober it does not answer", "3 event/web.1")
	k.run("get", "all").ok("NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE", "service/web ClusterIP None <none> 9100/TCP AGE")
	k.run("describe", "svc", "web").contains(
		"Name: web\nNamespace: NS\nLabels: app=web", "Selector: <none>\nType: ClusterIP", "IP: None", "Port: metrics 9100/TCP", "Endpoints: 10.0.0.1:9100",
		"Events:\nType Reason Age From Message\n---- ------ ---- ---- -------\nWarning Probed", "prober it does not answer")
	k.run("describe", "endpointslice", "web-1").contains("Name: web-1", "AddressType: IPv4", "metrics 9100 TCP", "- Addresses: 10.0.0.1", "Ready: true", "Hostname: vm-1", "Events: <none>")
	for _, args := range [][]string{{"events"}, {"events", "--for", "service/web"}, {"events", "--types=Warning"}} {
		k.run(args...).contains("LAST SEEN TYPE REASON OBJECT MESSAGE", "Warning Probed Service/web it does not answer")
	}
	k.run("events", "--types=Normal").ended(0, "", "No events found in NS namespace.")
	k.run("delete", "svc/web", "ep/web", "endpointslice/web-1", "event/web.1").ok(
		`service "web" deleted from NS namespace`, `endpoints "web" deleted from NS namespace`,
		`endpointslice.discovery.k8s.io "web-1" deleted from NS namespace`, `event "web.1" deleted from NS namespace`)
	k.run("get", "svc,ep,endpointslices,events").ended(0, "", "No resources found in NS namespace.")
}

// kubectl cluster-info shows where the server is, and the Services of kube-system with its label.
func TestKubectlClusterInfo(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	server := "https://127.0.0.1:" + shared.port
	k.run("cluster-info").contains("Kubernetes control plane", "is running at", server)
	name := k.namespace // of no other test
	k.run("create", "service", "clusterip", name, "--clusterip=None", "--tcp=53", "-n", "kube-system").ok("service/NS created")
	defer func() {
		k.run("delete", "service", name, "-n", "kube-system").ok(`service "NS" deleted from kube-system namespace`)
	}()
	k.run("label", "service", name, "kubernetes.io/cluster-service=true", "kubernetes.io/name=CatalogueDNS", "-n", "kube-system").ok("service/NS labeled")
	k.run("cluster-info", "-n", "kube-system").contains("Kubernetes control plane", "is running at", server, "CatalogueDNS", "is running at", server+"/api/v1/namespaces/kube-system/services/NS:53/proxy")
}
