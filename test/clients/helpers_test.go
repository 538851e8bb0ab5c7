package clients

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience bounds every wait for a condition: long enough for a loaded machine, and only
// ever used up by a test that fails.
const patience = 60 * time.Second

// config is a client's configuration, as the server's kubeconfig has it, without limits of
// the client's own.
func (s *server) config(t *testing.T) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	config.UserAgent = "clients.test/1"
	return config
}

// protobuf is the configuration of a client that reads and writes protobuf.
func protobuf(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return config
}

// client returns a typed client.
func (s *server) client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	return newClient(t, s.config(t))
}

func newClient(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// testContext ends a little before the test is given up, and with the test.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// makeNamespace makes a namespace that is deleted when the test ends.
func makeNamespace(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "clients-"}}
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return namespace.Name
}

// sharedNamespace is what most tests begin with: a client of the shared server and the
// Endpoints of a new namespace.
func sharedNamespace(t *testing.T) (*kubernetes.Clientset, string, typedcorev1.EndpointsInterface) {
	t.Helper()
	client := shared.client(t)
	namespace := makeNamespace(t, client)
	return client, namespace, client.CoreV1().Endpoints(namespace)
}

// newEndpoints is an object with one address and the labels, given as key and value in
// turn.
func newEndpoints(name string, keysAndValues ...string) *corev1.Endpoints {
	endpoints := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}},
			Ports:     []corev1.EndpointPort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		}},
	}
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		metav1.SetMetaDataLabel(&endpoints.ObjectMeta, keysAndValues[i], keysAndValues[i+1])
	}
	return endpoints
}

func mustCreate(t *testing.T, client typedcorev1.EndpointsInterface, endpoints *corev1.Endpoints) *corev1.Endpoints {
	t.Helper()
	created, err := client.Create(t.Context(), endpoints, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create %s: %v", endpoints.Name, err)
	}
	return created
}

func mustUpdate(t *testing.T, client typedcorev1.EndpointsInterface, endpoints *corev1.Endpoints) *corev1.Endpoints {
	t.Helper()
	updated, err := client.Update(t.Context(), endpoints, metav1.UpdateOptions{})
	if err != nil {
		t.Fatalf("update %s: %v", endpoints.Name, err)
	}
	return updated
}

func mustDelete(t *testing.T, client typedcorev1.EndpointsInterface, name string) {
	t.Helper()
	if err := client.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("delete %s: %v", name, err)
	}
}

// names are the names of a list's items, in its order.
func names(list *corev1.EndpointsList) []string {
	all := []string{}
	for i := range list.Items {
		all = append(all, list.Items[i].Name)
	}
	return all
}

// eventually waits until done says so, and fails the test with its last error otherwise.
func eventually(t *testing.T, what string, done func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = done(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, errors.Join(err, last))
	}
}

// openWatch opens a watch that ends with the test.
func openWatch(t *testing.T, client typedcorev1.EndpointsInterface, opts metav1.ListOptions) watch.Interface {
	t.Helper()
	w, err := client.Watch(t.Context(), opts)
	if err != nil {
		t.Fatalf("watch %+v: %v", opts, err)
	}
	t.Cleanup(w.Stop)
	return w
}

// nextEvent is the next event of a watch. The test fails where none comes.
func nextEvent(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case event, open := <-w.ResultChan():
		if !open {
			t.Fatal("the watch has ended")
		}
		return event
	case <-time.After(patience):
		t.Fatalf("no event within %v", patience)
	}
	return watch.Event{}
}

// expectEvent takes the next event, which must be of the type and about the object as it
// is described by name and resourceVersion; "" is any version.
func expectEvent(t *testing.T, w watch.Interface, want watch.EventType, name, resourceVersion string) *corev1.Endpoints {
	t.Helper()
	event := nextEvent(t, w)
	endpoints, ok := event.Object.(*corev1.Endpoints)
	if !ok || event.Type != want || endpoints.Name != name || resourceVersion != "" && endpoints.ResourceVersion != resourceVersion {
		t.Fatalf("got event %s, want %s of %s at version %q", describe(event), want, name, resourceVersion)
	}
	return endpoints
}

// describe is an event in few words.
func describe(event watch.Event) string {
	switch obj := event.Object.(type) {
	case *metav1.Status:
		return fmt.Sprintf("%s %d %s: %s", event.Type, obj.Code, obj.Reason, obj.Message)
	case metav1.Object:
		return fmt.Sprintf("%s of %s at version %q", event.Type, obj.GetName(), obj.GetResourceVersion())
	}
	return fmt.Sprintf("%s of a %T", event.Type, event.Object)
}

// checkStatus checks that err is an answer of that code and reason.
func checkStatus(t *testing.T, what string, err error, code int32, reason metav1.StatusReason) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatalf("%s: got error %v, want %d %s", what, err, code, reason)
	}
	if got := status.Status(); got.Code != code || got.Reason != reason {
		t.Errorf("%s: got %d %s (%s), want %d %s", what, got.Code, got.Reason, got.Message, code, reason)
	}
}
