package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
	bindingsPath = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"

	inProtobuf = "application/vnd.kubernetes.protobuf"
	asMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	asTable    = "application/json;as=Table;g=meta.k8s.io;v=v1"
)

// readKind is a way to read an Endpoints, or what is made of it: NAME and VERSION in its path are
// those of the last write.
type readKind struct {
	name, path, accept string
	// initial is a watch's, which begins with what is there.
	initial bool
}

var readKinds = []readKind{
	{name: "get", path: collectionPath + "/NAME"},
	{name: "get, protobuf", path: collectionPath + "/NAME", accept: inProtobuf},
	{name: "get, metadata", path: collectionPath + "/NAME", accept: asMetadata},
	{name: "get, Table", path: collectionPath + "/NAME", accept: asTable},
	{name: "get at a version", path: collectionPath + "/NAME?resourceVersion=VERSION"},
	{name: "list", path: collectionPath},
	{name: "list of all namespaces, protobuf", path: "/api/v1/endpoints", accept: inProtobuf},
	{name: "list, metadata in protobuf", path: collectionPath, accept: inProtobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"},
	{name: "list, Table", path: collectionPath, accept: asTable},
	{name: "list by label", path: collectionPath + "?labelSelector=mark"},
	{name: "list by field", path: collectionPath + "?fieldSelector=metadata.name=NAME"},
	{name: "list of a page", path: collectionPath + "?limit=500"},
	{name: "list at a version", path: collectionPath + "?resourceVersion=VERSION", accept: inProtobuf},
	{name: "list of exactly a version", path: collectionPath + "?resourceVersionMatch=Exact&resourceVersion=VERSION"},
	{name: "EndpointSlices", path: slicesPath},
	{name: "EndpointSlices by Service, protobuf", path: slicesPath + "?labelSelector=kubernetes.io/service-name=NAME", accept: inProtobuf},
	{name: "EndpointSlices, Table", path: slicesPath, accept: asTable},
	{name: "watch", path: collectionPath + "?watch=1&fieldSelector=metadata.name=NAME", initial: true},
	{name: "streaming list", path: collectionPath + "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name=NAME", initial: true},
	{name: "watch of EndpointSlices", path: slicesPath + "?watch=1&labelSelector=kubernetes.io/service-name=NAME", initial: true},
}

// read returns what a kind of read shows: of a watch, its first event.
func (c *client) read(t *testing.T, k readKind, name, version string) []byte {
	t.Helper()
	path := strings.NewReplacer("NAME", name, "VERSION", version).Replace(k.path)
	resp := c.send(t, http.MethodGet, path, "", "Accept", k.accept)
	defer resp.Body.Close()
	var body []byte
	var err error
	if k.initial {
		var event json.RawMessage
		err = json.NewDecoder(resp.Body).Decode(&event)
		body = event
	} else {
		body, err = io.ReadAll(resp.Body)
	}
	if err != nil {
		t.Fatalf("%s: %s: %v", k.name, resp.Status, err)
	}
	return body
}

// put writes an Endpoints with a label by which it is known in any form, and returns its version.
func (c *client) put(t *testing.T, name, mark string) string {
	t.Helper()
	resp := c.do(t, http.MethodPut, "/"+name, `{"metadata":{"name":"`+name+`","labels":{"mark":"`+mark+`"}},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]}`)
	defer resp.Body.Close()
	var written metav1.PartialObjectMetadata
	if err := json.NewDecoder(resp.Body).Decode(&written); err != nil || resp.StatusCode > http.StatusCreated {
		t.Fatalf("PUT: %s, %v", resp.Status, err)
	}
	return written.ResourceVersion
}

func version(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// To a client that goes from one replica to another all of them are one server: time does not run
// backwards.
func TestOrderOverReplicas(t *testing.T) {
	binary := buildServer(t)
	servers := startServers(t, binary, 2, token+",admin,admin,system:masters\n", "--log-level=warn")
	at := func(i int) *client { return newClient(t, servers[i].address, servers[0].pki.CACert()) }
	rounds := 8
	if *long {
		rounds = 100
	}
	t.Run("both directions", func(t *testing.T) {
		for i := range servers {
			t.Run(fmt.Sprintf("server %d", i), func(t *testing.T) {
				t.Parallel()
				writer, reader := at(i), at(1-i)
				t.Run("reads", func(t *testing.T) { testReadsElsewhere(t, writer, reader, fmt.Sprintf("reads-%d", i), rounds) })
				t.Run("watches", func(t *testing.T) { testWatchElsewhere(t, writer, reader, fmt.Sprintf("watches-%d", i), 5*rounds) })
				t.Run("rights", func(t *testing.T) { testRightsElsewhere(t, writer, reader, fmt.Sprintf("bob-%d", i), rounds) })
			})
		}
	})
	t.Run("resourceVersion=0", func(t *testing.T) { testVersionZero(t, servers, at, 50*rounds) })
}

// testReadsElsewhere expects every kind of read to show what another server has acknowledged.
func testReadsElsewhere(t *testing.T, writer, reader *client, name string, rounds int) {
	resp := writer.send(t, http.MethodPost, "/api/v1/namespaces/default/services", `{"metadata":{"name":"`+name+`"},"spec":{"clusterIP":"None"}}`)
	if resp.Body.Close(); resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
	for round := range rounds {
		for i, k := range readKinds {
			mark := fmt.Sprintf("mark-%d-%d-%s", round, i, name)
			written := writer.put(t, name, mark)
			if got := reader.read(t, k, name, written); !bytes.Contains(got, []byte(mark)) {
				t.Fatalf("%s: version %s is not shown: %.1000q", k.name, written, got)
			}
			if k.initial || strings.Contains(k.path, "VERSION") {
				continue // without the object it waits, or is of the past
			}
			writer.call(t, http.MethodDelete, "/"+name, "", http.StatusOK)
			if got := reader.read(t, k, name, ""); bytes.Contains(got, []byte(mark)) {
				t.Fatalf("%s: what was deleted is shown: %.1000q", k.name, got)
			}
		}
	}
}

// testWatchElsewhere expects of a watch from a version on exactly what came after it, at a server
// that may not have that version yet.
func testWatchElsewhere(t *testing.T, writer, reader *client, name string, rounds int) {
	for round := range rounds {
		from := writer.put(t, name, fmt.Sprint("mark-", round))
		resp := reader.do(t, http.MethodGet, "?watch=1&fieldSelector=metadata.name="+name+"&resourceVersion="+from, "")
		events := json.NewDecoder(resp.Body)
		for change := range 3 {
			want := writer.put(t, name, fmt.Sprintf("mark-%d-%d", round, change))
			var event struct {
				Type   string
				Object metav1.PartialObjectMetadata
			}
			if err := events.Decode(&event); err != nil || event.Type != "MODIFIED" || event.Object.ResourceVersion != want {
				t.Fatalf("after version %s: %v, %+v, want the change of version %s", from, err, event, want)
			}
		}
		resp.Body.Close()
	}
}

// testRightsElsewhere expects a right to be given and taken at a server that has shown the binding,
// and to get there by itself.
func testRightsElsewhere(t *testing.T, writer, reader *client, name string, rounds int) {
	binding := `{"metadata":{"name":"` + name + `"},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"` + name + `"}],
		"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}`
	code := func(c *client, method, path, body string, headers ...string) int {
		t.Helper()
		resp := c.send(t, method, path, body, headers...)
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	expect := func(want, got int) {
		t.Helper()
		if got != want {
			t.Fatalf("answered with %d, want %d", got, want)
		}
	}
	asUser := func() int { return code(reader, http.MethodGet, collectionPath, "", "Impersonate-User", name) }
	for round := range rounds {
		expect(http.StatusForbidden, asUser())
		expect(http.StatusCreated, code(writer, http.MethodPost, bindingsPath, binding))
		if looks := round%2 == 0; looks {
			expect(http.StatusOK, code(reader, http.MethodGet, bindingsPath+"/"+name, ""))
			expect(http.StatusOK, asUser())
		} else {
			await(t, "the right is given", func() bool { return asUser() == http.StatusOK })
		}
		expect(http.StatusOK, code(writer, http.MethodDelete, bindingsPath+"/"+name, ""))
		if looks := round%2 == 0; looks {
			expect(http.StatusNotFound, code(reader, http.MethodGet, bindingsPath+"/"+name, ""))
		} else {
			await(t, "the right is taken", func() bool { return asUser() == http.StatusForbidden })
		}
	}
}

// await waits until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// testVersionZero expects reads of resourceVersion=0 at one server never to show less than before,
// and after its restart no less than what was acknowledged before it.
func testVersionZero(t *testing.T, servers []*replica, at func(int) *client, reads int) {
	const name = "zero"
	writer := at(0)
	var acknowledged atomic.Int64
	acknowledged.Store(version(t, writer.put(t, name, "first")))
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			written, err := strconv.ParseInt(writer.put(t, name, fmt.Sprint("mark-", n)), 10, 64)
			if err != nil {
				t.Error(err)
			}
			acknowledged.Store(written)
		}
	})
	defer writing.Wait()
	defer stop()
	var connections []*client
	for range 4 {
		connections = append(connections, at(1))
	}
	var object, list int64 // the newest version of each that was seen
	newer := func(seen *int64, got string) {
		t.Helper()
		v := version(t, got)
		if v < *seen {
			t.Fatalf("version %d after version %d", v, *seen)
		}
		*seen = v
	}
	look := func(c *client) {
		t.Helper()
		var one metav1.PartialObjectMetadata
		if err := json.Unmarshal(c.call(t, http.MethodGet, "/"+name+"?resourceVersion=0", "", http.StatusOK), &one); err != nil {
			t.Fatal(err)
		}
		newer(&object, one.ResourceVersion)
		var all metav1.PartialObjectMetadataList
		answer := c.call(t, http.MethodGet, "?resourceVersion=0&fieldSelector=metadata.name="+name, "", http.StatusOK)
		if err := json.Unmarshal(answer, &all); err != nil || len(all.Items) != 1 {
			t.Fatalf("%v: %s", err, answer)
		}
		newer(&list, all.ResourceVersion)
		newer(&object, all.Items[0].ResourceVersion)
	}
	for n := range reads {
		look(connections[n%len(connections)])
	}
	servers[1].kill()
	down := acknowledged.Load()
	await(t, "another write", func() bool { return acknowledged.Load() > down })
	object = max(object, acknowledged.Load())
	servers[1].restart(t)
	awaitPort(t, servers[1].address, servers[1].process)
	again := at(1) // whose first read comes as early as there is a port
	for range reads / 4 {
		look(again)
	}
}
