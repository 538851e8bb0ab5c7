package clients

import (
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The tests of this file follow test/e2e/apimachinery/request_timeout.go.

// “Server request timeout should return HTTP status code 400 if the user specifies an
// invalid timeout in the request URL”.
func TestTimeoutInvalid(t *testing.T) {
	t.Parallel()
	client, namespace, _ := sharedNamespace(t)
	for _, timeout := range []string{"invalid", "1", "10x"} {
		err := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("endpoints").Param("timeout", timeout).Do(t.Context()).Error()
		checkStatus(t, "timeout="+timeout, err, 400, metav1.StatusReasonBadRequest)
	}
}

// “Server request timeout the request should be served with a default timeout if the
// specified timeout in the request URL exceeds maximum allowed”, “… default timeout should
// be used if the specified timeout in the request URL is 0s”.
func TestTimeoutDefault(t *testing.T) {
	t.Parallel()
	client, namespace, _ := sharedNamespace(t)
	for _, timeout := range []string{"3600s", "0s", "30s"} {
		err := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("endpoints").Param("timeout", timeout).Do(t.Context()).Error()
		if err != nil {
			t.Errorf("timeout=%s: %v", timeout, err)
		}
	}
}

// A request that cannot be served in its time ends with 504: here a version is asked for
// that is not there yet, and the client gives the server less time than it would wait.
func TestTimeoutPasses(t *testing.T) {
	t.Parallel()
	_, namespace, _ := sharedNamespace(t)
	start := time.Now()
	got := rawGet(t, "/api/v1/namespaces/"+namespace+"/endpoints?resourceVersion=999999999&timeout=200ms", nil)
	if got.code != http.StatusGatewayTimeout {
		t.Errorf("got %d: %s, want 504", got.code, got.body)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("the server gave up after %v, want it to use the time that it has", took)
	}
}

// A watch lives as long as the client asks, and its end is no error.
func TestTimeoutOfWatch(t *testing.T) {
	t.Parallel()
	_, _, endpoints := sharedNamespace(t)
	start := time.Now()
	w := openWatch(t, endpoints, metav1.ListOptions{TimeoutSeconds: new(int64(1))})
	select {
	case event, open := <-w.ResultChan():
		if open {
			t.Errorf("got event %s, want the end", describe(event))
		}
	case <-time.After(patience):
		t.Fatal("the watch does not end")
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("the watch ended after %v, want one second", took)
	}
}
