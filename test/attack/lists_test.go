package attack

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

const crowdPath = "/api/v1/namespaces/" + crowd + "/endpoints"

// Forms of a list.
const (
	asTable    = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json"
	asMetadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
	asYAML     = "application/yaml"
)

// lists read much, or often.
var lists = []attack{
	{name: "lists that nobody reads", short: 3 * time.Second, crowd: true, run: func(a *attacker) {
		a.hold(400, func(int) { a.unread(crowdPath) })
	}},
	{name: "lists that nobody reads, as a table", crowd: true, run: func(a *attacker) {
		a.hold(100, func(int) { a.unread(crowdPath, "Accept: "+asTable) })
	}},
	{name: "exact lists of a version that has passed", crowd: true, run: func(a *attacker) {
		path := crowdPath + "?resourceVersionMatch=Exact&resourceVersion=" + a.pastVersion()
		a.parallel(60, func(int, int) { a.get(path) })
	}},
	{name: "exact lists of many versions", crowd: true, run: func(a *attacker) {
		a.parallel(10, func(int, int) { a.get(crowdPath + "?resourceVersionMatch=Exact&resourceVersion=" + a.pastVersion()) })
	}},
	{name: "lists in JSON", crowd: true, run: listsAs("application/json")},
	{name: "lists in YAML", crowd: true, run: listsAs(asYAML)},
	{name: "lists in protobuf", crowd: true, run: listsAs(asProtobuf)},
	{name: "lists as a table", crowd: true, run: listsAs(asTable)},
	{name: "lists as a table with the objects", crowd: true, run: func(a *attacker) {
		a.parallel(10, func(int, int) { a.get(crowdPath+"?includeObject=Object", "Accept", asTable) })
	}},
	{name: "lists of metadata", crowd: true, run: listsAs(asMetadata)},
	{name: "lists with gzip, indented", crowd: true, run: func(a *attacker) {
		a.parallel(10, func(int, int) { a.get(crowdPath+"?pretty=1", "Accept-Encoding", "gzip") })
	}},
	{name: "lists in every form at once", crowd: true, run: func(a *attacker) {
		forms := []string{asYAML, asProtobuf, asTable, asMetadata, "application/json"}
		a.parallel(20, func(worker, _ int) { a.get(crowdPath, "Accept", forms[worker%len(forms)]) })
	}},
	{name: "pages of one object", crowd: true, run: func(a *attacker) {
		a.paced(20, 1000, func(int, int) { a.get(crowdPath + "?limit=1&labelSelector=a!=b") })
	}},
	{name: "large objects, one by one", crowd: true, run: func(a *attacker) {
		a.paced(20, 300, func(_, n int) { a.get(fmt.Sprintf("%s/large-%d", crowdPath, n%10), "Accept", asYAML) })
	}},
	{name: "discovery and OpenAPI", run: func(a *attacker) {
		paths := []string{"/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/api", "/apis", "/api/v1"}
		forms := []string{"*/*", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"}
		a.paced(20, 1000, func(worker, n int) { a.get(paths[n%len(paths)], "Accept", forms[worker%len(forms)]) })
	}},
	{name: "metrics", run: func(a *attacker) {
		a.paced(20, 500, func(int, int) { a.get("/metrics") })
	}},
	{name: "requests over the limit", run: flood(3000, func(a *attacker, _ int) { a.get(endpointsIn("default")) })},
}

func listsAs(accept string) func(*attacker) {
	return func(a *attacker) {
		a.parallel(10, func(int, int) { a.get(crowdPath, "Accept", accept) })
	}
}

// flood sends as many requests a second from a few goroutines.
func flood(perSecond rate.Limit, send func(a *attacker, n int)) func(*attacker) {
	return func(a *attacker) {
		a.paced(32, perSecond, func(worker, n int) { send(a, n*32+worker) })
	}
}

// unread asks for an answer over a connection of its own, and reads none of it.
func (a *attacker) unread(path string, headers ...string) {
	conn := a.dialTLS("http/1.1")
	if conn == nil {
		return
	}
	_ = conn.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	// A server that has closed the connection is what the attack is about, not a fault.
	_, _ = io.WriteString(conn, a.head(http.MethodGet, path, headers...)+"\r\n")
}

// pastVersion returns the version of the crowd, after which it changes.
func (a *attacker) pastVersion() string {
	_, answer, err := exchange(a.ctx, a.client, a.url, a.token, http.MethodGet, crowdPath+"?limit=1", "", "Accept", asMetadata)
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err != nil || json.Unmarshal(answer, &list) != nil {
		return "1"
	}
	a.do(http.MethodPatch, crowdPath+"/large-0", fmt.Sprintf(`{"metadata":{"labels":{"after":%q}}}`, list.Metadata.ResourceVersion),
		"Content-Type", "application/merge-patch+json")
	return list.Metadata.ResourceVersion
}
