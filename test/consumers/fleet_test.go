package consumers

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// backends are what stands behind a Service.
type backends struct {
	ready, notReady []string // IPv4 addresses
	ports           []port
}

// registered are the backends of a Service, and the way in which they were registered.
type registered struct {
	backends
	way string
}

// fleet is what is registered in a namespace, and what programs are to find there.
type fleet struct {
	client    *kubernetes.Clientset
	namespace string
	services  map[string]registered
	written   int // changes so far
}

func newFleet(client *kubernetes.Clientset) *fleet {
	return &fleet{client: client, namespace: metav1.NamespaceDefault, services: map[string]registered{}}
}

// feed is a way to register the backends of a Service. What is written in one way is found in all,
// since the server makes the other view of it.
type feed struct {
	set   func(ctx context.Context, f *fleet, name string, b backends) error
	unset func(ctx context.Context, f *fleet, name string) error
}

// feeds are all ways, by the resource that is written.
var feeds = map[string]feed{
	"endpoints": {
		set: func(ctx context.Context, f *fleet, name string, b backends) error {
			client, object := f.client.CoreV1().Endpoints(f.namespace), newEndpoints(name, slices.Concat(b.ready, b.notReady), b.ports...)
			if len(object.Subsets) > 0 {
				subset := &object.Subsets[0]
				subset.Addresses, subset.NotReadyAddresses = subset.Addresses[:len(b.ready)], subset.Addresses[len(b.ready):]
			}
			return createOrUpdate(ctx, object, client.Create, client.Update)
		},
		unset: func(ctx context.Context, f *fleet, name string) error {
			return f.client.CoreV1().Endpoints(f.namespace).Delete(ctx, name, metav1.DeleteOptions{})
		},
	},
	"endpointslices": {
		set: func(ctx context.Context, f *fleet, name string, b backends) error {
			client, object := f.client.DiscoveryV1().EndpointSlices(f.namespace), newSlice(name, b.ready, b.ports...)
			for _, ip := range b.notReady {
				object.Endpoints = append(object.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(false)}})
			}
			return createOrUpdate(ctx, object, client.Create, client.Update)
		},
		unset: func(ctx context.Context, f *fleet, name string) error {
			return f.client.DiscoveryV1().EndpointSlices(f.namespace).Delete(ctx, name, metav1.DeleteOptions{})
		},
	},
}

// createOrUpdate writes the object whether or not there is one.
func createOrUpdate[T any](ctx context.Context, object T,
	create func(context.Context, T, metav1.CreateOptions) (T, error), update func(context.Context, T, metav1.UpdateOptions) (T, error),
) error {
	_, err := update(ctx, object, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = create(ctx, object, metav1.CreateOptions{})
	}
	return err
}

// set writes a Service and, in the named way, its backends.
func (f *fleet) set(t *testing.T, way, name string, b backends) {
	t.Helper()
	services := f.client.CoreV1().Services(f.namespace)
	if err := createOrUpdate(t.Context(), newService(name, b.ports...), services.Create, services.Update); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := feeds[way].set(t.Context(), f, name, b); err != nil {
		t.Fatalf("%s: %s: %v", name, way, err)
	}
	f.services[name] = registered{b, way}
	f.written += 2
}

// unset deletes a Service and its backends.
func (f *fleet) unset(t *testing.T, name string) {
	t.Helper()
	if err := f.client.CoreV1().Services(f.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	way := f.services[name].way
	if err := feeds[way].unset(t.Context(), f, name); err != nil {
		t.Fatalf("%s: %s: %v", name, way, err)
	}
	delete(f.services, name)
	f.written += 2
}

// churn writes at least so many random changes: creations, updates and deletions.
func (f *fleet) churn(t *testing.T, changes int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, uint64(f.written)))
	ways := slices.Sorted(maps.Keys(feeds))
	for until := f.written + changes; f.written < until; {
		number := random.IntN(30)
		way := ways[number%len(ways)]
		name := fmt.Sprintf("%s-%d", way, number)
		if _, there := f.services[name]; there && random.IntN(4) == 0 {
			f.unset(t, name)
			continue
		}
		var b backends
		for _, last := range random.Perm(250)[:random.IntN(6)] {
			ip := fmt.Sprintf("10.1.0.%d", last+1)
			if random.IntN(4) == 0 {
				b.notReady = append(b.notReady, ip)
			} else {
				b.ready = append(b.ready, ip)
			}
		}
		b.ports = []port{{"metrics", 9100}, {"http", 8080}}[:1+random.IntN(2)]
		f.set(t, way, name, b)
	}
}

// targets are what a program is to find by a role, in the order of their text.
func (f *fleet) targets(role string) []string {
	all := []string{}
	for name, b := range f.services {
		for _, p := range b.ports {
			if role == "service" {
				all = append(all, describeTarget(name, fmt.Sprintf("%s.%s.svc:%d", name, f.namespace, p.number), p.name, ""))
				continue
			}
			for ready, addresses := range map[string][]string{"true": b.ready, "false": b.notReady} {
				for _, ip := range addresses {
					all = append(all, describeTarget(name, fmt.Sprintf("%s:%d", ip, p.number), p.name, ready))
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

func describeTarget(name, address, port, ready string) string {
	return fmt.Sprintf("%s %s %s %s", name, address, port, ready)
}

// roleLabels are the labels that describe a target, by role.
var roleLabels = map[string]struct{ name, port, ready string }{
	"service":       {"service_name", "service_port_name", ""},
	"endpoints":     {"endpoints_name", "endpoint_port_name", "endpoint_ready"},
	"endpointslice": {"endpointslice_label_kubernetes_io_service_name", "endpointslice_port_name", "endpointslice_endpoint_conditions_ready"},
}

// discovered describes a target by the labels that a program has found it with.
func discovered(role string, labels map[string]string) string {
	names := roleLabels[role]
	meta := func(name string) string { return labels["__meta_kubernetes_"+name] }
	return describeTarget(meta(names.name), labels["__address__"], meta(names.port), meta(names.ready))
}

// expectFound waits until a program has found exactly what is registered, by every role. found has
// its targets by role.
func (f *fleet) expectFound(t *testing.T, when string, found func(ctx context.Context) (map[string][]string, error)) {
	t.Helper()
	want := map[string][]string{}
	for role := range roleLabels {
		want[role] = f.targets(role)
	}
	eventually(t, when, func(ctx context.Context) error {
		got, err := found(ctx)
		if err != nil {
			return err
		}
		for role := range want {
			slices.Sort(got[role])
			if !slices.Equal(want[role], got[role]) {
				return fmt.Errorf("targets of the role %s (-want +got)\n%s", role, cmp.Diff(want[role], got[role]))
			}
		}
		return nil
	})
}

// registerFirst registers something in every way.
func (f *fleet) registerFirst(t *testing.T) {
	t.Helper()
	for way := range feeds {
		f.set(t, way, "first-"+way, backends{ready: []string{"10.0.0.1"}, ports: []port{{"metrics", 9100}}})
	}
}

// setTimed is the write of that number, by turns in every way.
func (f *fleet) setTimed(t *testing.T, number int) {
	t.Helper()
	ways := slices.Sorted(maps.Keys(feeds))
	way := ways[number%len(ways)]
	f.set(t, way, "first-"+way, backends{ready: []string{fmt.Sprintf("10.2.0.%d", number+1)}, ports: []port{{"metrics", 9100}}})
}
