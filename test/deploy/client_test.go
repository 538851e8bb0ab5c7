package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/test/harness"
)

const (
	origin         = "https://" + hostname
	collectionPath = "/api/v1/namespaces/default/endpoints"
	collection     = origin + collectionPath
	// clientAddress is where clients connect from: another address than that of a proxy,
	// which connects from 127.0.0.1.
	clientAddress = "127.0.0.2"
)

// client reaches the servers by their common name at one address, over HTTP/2.
type client struct{ http *http.Client }

// newClient returns a client that trusts a CA.
func newClient(t *testing.T, address, caFile string) *client {
	t.Helper()
	c, err := harness.NewClient(caFile)
	if err != nil {
		t.Fatal(err)
	}
	transport := c.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddress)}}
		return dialer.DialContext(ctx, network, address)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{c}
}

// do returns the answer to a request for the collection or what is in it; the caller closes its body.
func (c *client) do(t *testing.T, method, path, body string, headers ...string) *http.Response {
	t.Helper()
	return c.send(t, method, collectionPath+path, body, headers...)
}

// send returns the answer to a request, whose body the caller closes.
func (c *client) send(t *testing.T, method, path, body string, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, origin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.ProtoMajor != 2 {
		t.Errorf("%s %s: answered over %s, want HTTP/2", method, path, resp.Proto)
	}
	return resp
}

// call expects an answer with the code and returns its body.
func (c *client) call(t *testing.T, method, path, body string, want int) []byte {
	t.Helper()
	resp := c.do(t, method, path, body)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s %s: got %d, want %d: %.300s", method, path, resp.StatusCode, want, answer)
	}
	return answer
}

// create makes an Endpoints with as many addresses.
func (c *client) create(t *testing.T, name string, addresses int) {
	t.Helper()
	object := corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subsets:    []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80}}}},
	}
	for i := range addresses {
		object.Subsets[0].Addresses = append(object.Subsets[0].Addresses, corev1.EndpointAddress{
			IP: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255),
		})
	}
	body, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	c.call(t, http.MethodPost, "", string(body), http.StatusCreated)
}

// get returns an object as JSON.
func (c *client) get(t *testing.T, name string) []byte {
	t.Helper()
	return c.call(t, http.MethodGet, "/"+name, "", http.StatusOK)
}

// version returns the version of the collection.
func (c *client) version(t *testing.T) string {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(c.call(t, http.MethodGet, "?limit=1", "", http.StatusOK), &list); err != nil {
		t.Fatal(err)
	}
	return list.ResourceVersion
}

// events is an open watch.
type events struct{ next func(event any) error }

// watch watches the collection for what happens from now on.
func (c *client) watch(t *testing.T) events {
	t.Helper()
	resp := c.do(t, http.MethodGet, "?watch=1&resourceVersion="+c.version(t), "")
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the watch was answered with %s", resp.Status)
	}
	return events{json.NewDecoder(resp.Body).Decode}
}

// watchSocket does as watch does, over a WebSocket.
func (c *client) watchSocket(t *testing.T) events {
	t.Helper()
	transport := c.http.Transport.(*http.Transport)
	dialer := websocket.Dialer{NetDialContext: transport.DialContext, TLSClientConfig: transport.TLSClientConfig.Clone(), HandshakeTimeout: patience}
	dialer.TLSClientConfig.NextProtos = nil // HTTP/1.1
	header := http.Header{"Authorization": {"Bearer " + token}, "Origin": {"https://example.com"}}
	url := "wss" + strings.TrimPrefix(collection, "https") + "?watch=1&resourceVersion=" + c.version(t)
	conn, resp, err := dialer.DialContext(t.Context(), url, header)
	if err != nil {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return events{conn.ReadJSON}
}

// expect waits until the next event, which must tell that the object was added. The client's
// time-out bounds the wait.
func (e events) expect(t *testing.T, name string) {
	t.Helper()
	var event struct {
		Type   string
		Object metav1.PartialObjectMetadata
	}
	if err := e.next(&event); err != nil {
		t.Fatalf("no event: %v", err)
	}
	if event.Type != "ADDED" || event.Object.Name != name {
		t.Errorf("got %s %s, want ADDED %s", event.Type, event.Object.Name, name)
	}
}
