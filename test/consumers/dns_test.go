package consumers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

var etcd = program{name: "etcd", module: "go.etcd.io/etcd/server/v3", version: "v3.7.3", main: "go.etcd.io/etcd/server/v3"}

func TestCoreDNS(t *testing.T) {
	s := startServer(t)
	c, names := s.client(t), startCoreDNS(t, s)
	t.Run("every sort of record", func(t *testing.T) { testRecords(t, c, names) })

	write := addressWriter(t, c, names)
	var seen []time.Duration
	for range 50 {
		seen = append(seen, write())
	}
	proven.add("CoreDNS", coredns.version, "50 writes", seen)
	if p50 := slices.Sorted(slices.Values(seen))[len(seen)/2]; p50 > time.Second {
		t.Errorf("half of the writes were seen in DNS later than after %v", p50)
	}

	seen = nil
	for range 3 {
		s.Kill(t)
		if got, err := names.look(t.Context(), dns.TypeA, "vm-1.web"); err != nil || !slices.Equal(got, []string{"10.20.0.11"}) {
			t.Errorf("while the server is down: %q, %v", got, err)
		}
		s.Restart(t)
		seen = append(seen, write())
	}
	proven.add("CoreDNS", coredns.version, "the first write after kill -9 of the server", seen)

	t.Run("random changes", func(t *testing.T) { testRandomChanges(t, c, names) })
}

// TestCoreDNSEtcd kills the etcd of a server.
func TestCoreDNSEtcd(t *testing.T) {
	program, dir := etcd.build(t), t.TempDir()
	clients, peers := "http://"+freeAddress(t), "http://"+freeAddress(t)
	startEtcd := func() (pid int) {
		_, pid = start(t, program, "--data-dir="+dir, "--log-level=error", "--unsafe-no-fsync",
			"--listen-client-urls="+clients, "--advertise-client-urls="+clients,
			"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=default="+peers)
		return pid
	}
	pid := startEtcd()
	s := startServer(t, "--etcd-servers="+clients)
	c, names := s.client(t), startCoreDNS(t, s)
	write := addressWriter(t, c, names)
	write()
	var seen []time.Duration
	for range 3 {
		before, err := names.look(t.Context(), dns.TypeA, "written")
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		names.await(t, dns.TypeA, "written", before...)
		pid = startEtcd()
		seen = append(seen, write())
	}
	proven.add("CoreDNS", coredns.version, "the first write after kill -9 of etcd", seen)
}

// addressWriter returns a function that gives a Service another address, and returns how long after the
// server's answer the address is in DNS. It writes until the server takes it, which it may not while etcd
// starts.
func addressWriter(t *testing.T, c kubernetes.Interface, names *nameServer) func() time.Duration {
	t.Helper()
	const name = "written"
	must[*corev1.Service](t, "create")(c.CoreV1().Services("default").Create(t.Context(), newService(name, port{"http", 80}), metav1.CreateOptions{}))
	endpoints := c.CoreV1().Endpoints("default")
	must[*corev1.Endpoints](t, "create")(endpoints.Create(t.Context(), newEndpoints(name, nil, port{"http", 80}), metav1.CreateOptions{}))
	address := netip.MustParseAddr("10.30.0.0")
	return func() time.Duration {
		t.Helper()
		address = address.Next()
		eventually(t, "write", func(ctx context.Context) error {
			_, err := endpoints.Update(ctx, newEndpoints(name, []string{address.String()}, port{"http", 80}), metav1.UpdateOptions{})
			return err
		})
		written := time.Now()
		names.await(t, dns.TypeA, name, address.String())
		return time.Since(written)
	}
}

func testRecords(t *testing.T, c kubernetes.Interface, names *nameServer) {
	ports := []port{{"http", 80}, {"metrics", 9100}}
	must[*corev1.Service](t, "create")(c.CoreV1().Services("default").Create(t.Context(), newService("web", ports...), metav1.CreateOptions{}))
	v4, v6 := newSlice("web", []string{"10.20.0.11", "10.20.0.12", "10.20.0.13"}, ports...), newSlice("web", []string{"2001:db8::1"}, ports...)
	v4.Endpoints[0].Hostname, v4.Endpoints[2].Conditions.Ready = new("vm-1"), new(false)
	v6.Name, v6.AddressType = "web-6", discoveryv1.AddressTypeIPv6
	for _, slice := range []*discoveryv1.EndpointSlice{v4, v6} {
		must[*discoveryv1.EndpointSlice](t, "create")(c.DiscoveryV1().EndpointSlices("default").Create(t.Context(), slice, metav1.CreateOptions{}))
	}
	given := newService("given", port{"http", 80})
	given.Spec.ClusterIP = "10.96.7.8"
	must[*corev1.Service](t, "create")(c.CoreV1().Services("default").Create(t.Context(), given, metav1.CreateOptions{}))
	for _, tc := range []struct {
		kind uint16
		name string
		want []string
	}{
		{dns.TypeA, "web", []string{"10.20.0.11", "10.20.0.12"}},
		{dns.TypeAAAA, "web", []string{"2001:db8::1"}},
		{dns.TypeA, "vm-1.web", []string{"10.20.0.11"}},
		{dns.TypeAAAA, "vm-1.web", nil},
		{dns.TypeA, "10-20-0-12.web", []string{"10.20.0.12"}},
		{dns.TypeAAAA, "2001-db8--1.web", []string{"2001:db8::1"}},
		{dns.TypeA, "10-20-0-13.web", []string{"NXDOMAIN"}}, // it is not ready
		{dns.TypeSRV, "_metrics._tcp.web", []string{"9100 10-20-0-12.web", "9100 2001-db8--1.web", "9100 vm-1.web"}},
		{dns.TypeSRV, "_http._tcp.web", []string{"80 10-20-0-12.web", "80 2001-db8--1.web", "80 vm-1.web"}},
		{dns.TypeSRV, "_metrics._udp.web", []string{"NXDOMAIN"}},
		{dns.TypePTR, "11.0.20.10.in-addr.arpa.", []string{"vm-1.web"}},
		{dns.TypePTR, "12.0.20.10.in-addr.arpa.", []string{"10-20-0-12.web"}},
		{dns.TypePTR, "13.0.20.10.in-addr.arpa.", []string{"NXDOMAIN"}},
		{dns.TypePTR, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", []string{"2001-db8--1.web"}},
		{dns.TypeA, "given", []string{"10.96.7.8"}},
		{dns.TypeSRV, "_http._tcp.given", []string{"80 given"}},
		{dns.TypeA, "missing", []string{"NXDOMAIN"}},
		{dns.TypeA, "web.missing.svc.cluster.local.", []string{"NXDOMAIN"}},
	} {
		names.await(t, tc.kind, tc.name, tc.want...)
	}
}

// testRandomChanges changes Services and slices as fast as it can, and compares what DNS says with what
// is stored.
func testRandomChanges(t *testing.T, c kubernetes.Interface, names *nameServer) {
	const changes, services = 1000, 10
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range changes {
		if err := changeAtRandom(t.Context(), c, random, fmt.Sprint("random-", random.IntN(services))); err != nil {
			t.Fatal(err)
		}
	}
	want := storedNames(t, c, services)
	began, last, differs := time.Now(), map[string][]string{}, error(nil)
	eventually(t, "DNS is what is stored", func(ctx context.Context) error {
		for name := range want {
			kind := dns.TypeA
			if strings.HasPrefix(name, "_") {
				kind = dns.TypeSRV
			}
			found, err := names.look(ctx, kind, name)
			if err != nil {
				return errors.Join(err, differs) // the time may be over
			}
			last[name] = found
		}
		differs = nil
		if diff := cmp.Diff(want, last); diff != "" {
			differs = fmt.Errorf("(-want +got)\n%s", diff)
		}
		return differs
	})
	proven.add("CoreDNS", coredns.version, fmt.Sprintf("%d random changes, then what is stored", changes), []time.Duration{time.Since(began)})
}

// changeAtRandom creates, changes or deletes a Service or one of its two slices.
func changeAtRandom(ctx context.Context, c kubernetes.Interface, random *rand.Rand, name string) error {
	serviceAPI, sliceAPI := c.CoreV1().Services("default"), c.DiscoveryV1().EndpointSlices("default")
	if random.IntN(5) == 0 {
		err := serviceAPI.Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil {
			_, err = serviceAPI.Create(ctx, newService(name, port{"http", 80}), metav1.CreateOptions{})
		}
		return err
	}
	n := random.IntN(2)
	slice := newSlice(name, nil, port{"http", int32(80 + n)})
	slice.Name = fmt.Sprint(name, "-", n)
	for i := range random.IntN(6) {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.40.%d.%d", n, 1+6*random.IntN(40)+i)},
			Conditions: discoveryv1.EndpointConditions{Ready: new(random.IntN(3) > 0)},
		})
	}
	if random.IntN(5) == 0 && sliceAPI.Delete(ctx, slice.Name, metav1.DeleteOptions{}) == nil {
		return nil
	}
	_, err := sliceAPI.Update(ctx, slice, metav1.UpdateOptions{})
	if err != nil {
		_, err = sliceAPI.Create(ctx, slice, metav1.CreateOptions{})
	}
	return err
}

// storedNames returns what DNS must say of the random Services, by what is stored. Without a ready
// address a headless Service has no names.
func storedNames(t *testing.T, c kubernetes.Interface, services int) map[string][]string {
	t.Helper()
	storedServices := must[*corev1.ServiceList](t, "list")(c.CoreV1().Services("default").List(t.Context(), metav1.ListOptions{}))
	storedSlices := must[*discoveryv1.EndpointSliceList](t, "list")(c.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{}))
	want := map[string][]string{}
	for i := range services {
		name := fmt.Sprint("random-", i)
		addresses, targets := []string{}, []string{}
		for _, slice := range storedSlices.Items {
			if slice.Labels[discoveryv1.LabelServiceName] != name {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if ip := endpoint.Addresses[0]; *endpoint.Conditions.Ready {
					addresses = append(addresses, ip)
					targets = append(targets, fmt.Sprint(*slice.Ports[0].Port, " ", strings.ReplaceAll(ip, ".", "-"), ".", name))
				}
			}
		}
		exists := slices.ContainsFunc(storedServices.Items, func(s corev1.Service) bool { return s.Name == name })
		if !exists || len(addresses) == 0 {
			addresses, targets = []string{"NXDOMAIN"}, []string{"NXDOMAIN"}
		}
		slices.Sort(addresses)
		slices.Sort(targets)
		want[name], want["_http._tcp."+name] = addresses, targets
	}
	return want
}
