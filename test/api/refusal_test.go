package api

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A refused request is answered although its body never comes.
func TestRefusalsDoNotWaitForBodies(t *testing.T) {
	config := shared.Transport(false).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	for _, head := range []string{
		"POST /api/v1/namespaces/default/endpoints HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"GET /api/v1/namespaces/default/endpoints HTTP/1.1\r\nHost: x\r\nX-Auth-Token: none\r\nContent-Length: 10\r\n\r\n",
	} {
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", strings.TrimPrefix(shared.URL, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("answered with %d", resp.StatusCode)
		}
	}
}

// Whatever a namespace is called, its list is a list, and valid JSON.
func TestListsOfOddNamespaces(t *testing.T) {
	for _, ns := range []string{"watch", "a%01b", "a%FFb", "%7F", "%E2%80%A8"} {
		a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, fmt.Sprintf("/api/v1/namespaces/%s/endpoints?timeout=5s", ns), nil))
		var list struct{ Kind string }
		if err := json.Unmarshal(a.body, &list); a.code != http.StatusOK || err != nil || list.Kind != "EndpointsList" {
			t.Errorf("%s: %d %q %v", ns, a.code, a.body, err)
		}
	}
}
