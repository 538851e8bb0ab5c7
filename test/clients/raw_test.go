package clients

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// answer is the answer to a request.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// rawGet gets a path of the shared server without a typed client.
func rawGet(t *testing.T, path string, header http.Header) answer {
	t.Helper()
	config := shared.config(t)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(request.Header, header)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, data}
}

// tableEvent is an event of a watch whose objects are tables.
type tableEvent struct {
	Type   string
	Object metav1.Table
}

// nextTable reads one event of such a watch.
func nextTable(t *testing.T, stream *json.Decoder) tableEvent {
	t.Helper()
	var event tableEvent
	if err := stream.Decode(&event); err != nil {
		t.Fatal(err)
	}
	return event
}
