package consumers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-project/berth/test/harness"
)

// patience bounds every wait for a condition: only a test that fails uses it up.
const patience = 60 * time.Second

// server is a server with an embedded etcd and an empty data directory, which Kill ends as a crash
// would and Restart starts again on the same port and data.
type server struct{ *harness.Server }

// startServer starts a server that the test's end stops.
func startServer(t *testing.T, flags ...string) *server {
	t.Helper()
	return &server{harness.Run(t, binary, append([]string{"--log-level=warn"}, flags...)...)}
}

// crash kills the server and starts it again.
func (s *server) crash(t *testing.T) {
	t.Helper()
	s.Kill(t)
	s.Restart(t)
}

func (s *server) data(name string) string { return filepath.Join(s.Dir, "berth.data", name) }
func (s *server) kubeconfig() string      { return s.data("kubeconfig") }
func (s *server) tokenFile() string       { return s.data("token") }
func (s *server) caFile() string          { return s.data(filepath.Join("pki", "ca.crt")) }

// config is the configuration of a client with connections of its own, which end with the test. It
// reads and writes protobuf, without limits of its own.
func (s *server) config(t *testing.T) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	config.UserAgent = "consumers.test/" + t.Name()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return config
}

func (s *server) client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	return newClient(t, s.config(t))
}

func newClient(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(httpClient.CloseIdleConnections)
	client, err := kubernetes.NewForConfigAndClient(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// eventually waits until done returns nil, and fails the test with its last error otherwise.
func eventually(t *testing.T, what string, done func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = done(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, errors.Join(err, last))
	}
}

// port is a port's name and number.
type port struct {
	name   string
	number int32
}

// newService is a headless Service without a selector.
func newService(name string, ports ...port) *corev1.Service {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}}
	for _, p := range ports {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: p.name, Port: p.number, Protocol: corev1.ProtocolTCP})
	}
	return service
}

// newEndpoints has the addresses, all ready, at each port.
func newEndpoints(name string, addresses []string, ports ...port) *corev1.Endpoints {
	subset := corev1.EndpointSubset{}
	for _, ip := range addresses {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: ip})
	}
	for _, p := range ports {
		subset.Ports = append(subset.Ports, corev1.EndpointPort{Name: p.name, Port: p.number, Protocol: corev1.ProtocolTCP})
	}
	endpoints := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if len(addresses) > 0 {
		endpoints.Subsets = []corev1.EndpointSubset{subset}
	}
	return endpoints
}

// newSlice is the only slice of a Service, of the same name, with the IPv4 addresses, all ready.
func newSlice(service string, addresses []string, ports ...port) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{},
	}
	for _, ip := range addresses {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}})
	}
	for _, p := range ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: new(p.name), Port: new(p.number), Protocol: new(corev1.ProtocolTCP)})
	}
	return slice
}

// httpClient is for requests to the programs themselves.
func httpClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// must fails the test if a write failed.
func must[T any](t *testing.T, what string) func(T, error) T {
	t.Helper()
	return func(result T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(fmt.Errorf("%s: %w", what, err))
		}
		return result
	}
}
