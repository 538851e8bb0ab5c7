package consumers

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/sercand/kuberesolver/v6"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestKuberesolver has a gRPC client find its servers by kuberesolver, and follow every change of them.
func TestKuberesolver(t *testing.T) {
	const version, changes = "v6.0.1", 1000
	s := startServer(t)
	c, grpcFleet := s.client(t), startFleet(t)
	ports := []port{{"grpc", 9090}, {"metrics", 9100}}
	must[*corev1.Service](t, "create")(c.CoreV1().Services("default").Create(t.Context(), newService("web", ports...), metav1.CreateOptions{}))
	slice := newSlice("web", grpcFleet.addresses[:1], ports...)
	must[*discoveryv1.EndpointSlice](t, "create")(c.DiscoveryV1().EndpointSlices("default").Create(t.Context(), slice, metav1.CreateOptions{}))

	states := &states{}
	conn := grpcFleet.dial(t, &recordingBuilder{kuberesolver.NewBuilder(kuberesolver.NewInsecureK8sClient(startTokenProxy(t, s)), "kubernetes"), states})
	grpcFleet.expectAnswers(t, conn, grpcFleet.addresses[:1])

	want := [][]string{grpcFleet.addresses[:1]}
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	change := func() {
		t.Helper()
		slice, want = grpcFleet.change(random, slice, want)
		must[*discoveryv1.EndpointSlice](t, "update")(c.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice, metav1.UpdateOptions{}))
	}
	for range changes {
		change()
	}
	states.await(t, want[len(want)-1])
	got := states.all()
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("the resolver has had %d states, want %d (-want +got)\n%.4000s", len(got), len(want), diff)
	}
	grpcFleet.expectAnswers(t, conn, want[len(want)-1])
	proven.add("kuberesolver", version, fmt.Sprintf("%d changes, %d missed", changes, len(want)-len(got)), nil)

	for range 3 {
		s.Kill(t)
		grpcFleet.expectAnswers(t, conn, want[len(want)-1])
		s.Restart(t)
		change()
		states.await(t, want[len(want)-1])
	}
	grpcFleet.expectAnswers(t, conn, want[len(want)-1])
	proven.add("kuberesolver", version, "changes after kill -9 of the server", nil)
}

// startTokenProxy adds the administrator's token to requests, as kuberesolver does only in a cluster, and
// returns its URL.
func startTokenProxy(t *testing.T, s *server) string {
	t.Helper()
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(s.config(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:    transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		ErrorLog:     log.New(io.Discard, "", 0), // the server is killed
	})
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections() // kuberesolver's
		proxy.Close()
	})
	return proxy.URL
}

// recordingBuilder records the states of the resolvers that it builds.
type recordingBuilder struct {
	resolver.Builder
	states *states
}

// Build implements resolver.Builder.
func (b *recordingBuilder) Build(target resolver.Target, cc resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	return b.Builder.Build(target, &recordingConn{cc, b.states}, opts)
}

type recordingConn struct {
	resolver.ClientConn
	states *states
}

// UpdateState implements resolver.ClientConn.
func (c *recordingConn) UpdateState(state resolver.State) error {
	err := c.ClientConn.UpdateState(state)
	c.states.add(state)
	return err
}

// states are those that a resolver has reported: addresses with ports, in order.
type states struct {
	mu   sync.Mutex
	list [][]string
}

func (s *states) add(state resolver.State) {
	found := []string{}
	for _, address := range state.Addresses {
		host, port, err := net.SplitHostPort(address.Addr)
		if err != nil || port != "9100" {
			host = address.Addr // which nobody wants
		}
		found = append(found, host)
	}
	slices.Sort(found)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, found)
}

func (s *states) all() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// await waits until the last state is the one wanted.
func (s *states) await(t *testing.T, want []string) {
	t.Helper()
	eventually(t, "the resolver's state", func(context.Context) error {
		all := s.all()
		if len(all) == 0 || !slices.Equal(all[len(all)-1], want) {
			return fmt.Errorf("the last of %d states is not %q", len(all), want)
		}
		return nil
	})
}

// grpcFleet is gRPC servers on this machine that have addresses of others: a client's connections to
// these go to them.
type grpcFleet struct {
	addresses []string
	listening map[string]string // by address
}

func startFleet(t *testing.T) *grpcFleet {
	t.Helper()
	f := &grpcFleet{listening: map[string]string{}}
	for i := range 8 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(server, health.NewServer())
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(listener) // until it is stopped
		}()
		t.Cleanup(func() {
			server.Stop()
			<-served
		})
		address := fmt.Sprint("10.20.0.", 11+i)
		f.addresses = append(f.addresses, address)
		f.listening[address] = listener.Addr().String()
	}
	return f
}

// dial returns a client that finds its servers by a resolver, and takes turns.
func (f *grpcFleet) dial(t *testing.T, by resolver.Builder) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("kubernetes:///web.default:metrics",
		grpc.WithResolvers(by),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", f.listening[host])
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// expectAnswers waits until calls are answered by the servers with these addresses, and by no other.
func (f *grpcFleet) expectAnswers(t *testing.T, conn *grpc.ClientConn, addresses []string) {
	t.Helper()
	client, want := grpc_health_v1.NewHealthClient(conn), []string{}
	for _, address := range addresses {
		want = append(want, f.listening[address])
	}
	slices.Sort(want)
	eventually(t, "who answers", func(ctx context.Context) error {
		got := []string{}
		for range 4 * len(f.addresses) {
			var from peer.Peer
			if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&from), grpc.WaitForReady(true)); err != nil {
				return err
			}
			got = append(got, from.Addr.String())
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			return fmt.Errorf("%q answer, want %q", got, want)
		}
		return nil
	})
}

// change makes another slice of one, with at least one address that is ready, and appends those to the
// states that a resolver must have.
func (f *grpcFleet) change(random *rand.Rand, slice *discoveryv1.EndpointSlice, want [][]string) (*discoveryv1.EndpointSlice, [][]string) {
	for {
		changed, ready := slice.DeepCopy(), []string{}
		changed.Endpoints = []discoveryv1.Endpoint{}
		for _, address := range f.addresses {
			state := random.IntN(4) // a quarter is absent, and one not ready
			if state == 0 {
				continue
			}
			changed.Endpoints = append(changed.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: new(state > 1)},
			})
			if state > 1 {
				ready = append(ready, address)
			}
		}
		if len(ready) > 0 && !slices.Equal(ready, want[len(want)-1]) {
			return changed, append(want, ready)
		}
	}
}
