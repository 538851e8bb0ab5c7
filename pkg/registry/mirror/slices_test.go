package mirror_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
)

const seeds = 100

// expected is the rules once more, slowly: the endpoints of each port, by their identity, and
// the ports that belong together.
type expected struct {
	endpoints map[string]map[string]string
	together  map[string][]string // ports with the same addresses
}

type known struct {
	ready bool
	first *corev1.EndpointAddress
}

func expect(e *corev1.Endpoints) expected {
	first := map[string]*corev1.EndpointAddress{}
	ports := map[string]map[string]known{}
	for i := range e.Subsets {
		subset := &e.Subsets[i]
		names := []string{"none"}
		if len(subset.Ports) > 0 {
			names = nil
		}
		for _, p := range subset.Ports {
			names = append(names, portName(p.Name, p.Port, p.Protocol, p.AppProtocol))
		}
		for state, list := range [][]corev1.EndpointAddress{subset.Addresses, subset.NotReadyAddresses} {
			for j := range list {
				a := &list[j]
				id := a.IP + "|"
				if a.TargetRef != nil {
					id += string(a.TargetRef.UID)
				}
				if first[id] == nil {
					first[id] = a
				}
				for _, name := range names {
					if ports[name] == nil {
						ports[name] = map[string]known{}
					}
					before, found := ports[name][id]
					ports[name][id] = known{state == 0 && (!found || before.ready), first[id]}
				}
			}
		}
	}
	want := expected{map[string]map[string]string{}, map[string][]string{}}
	for name, members := range ports {
		key := ""
		for _, id := range slices.Sorted(maps.Keys(members)) {
			key += fmt.Sprint(id, members[id].ready, ";")
		}
		want.together[key] = append(want.together[key], name)
		want.endpoints[name] = render(members)
	}
	for key, names := range want.together {
		if len(names) > 1 && slices.Contains(names, "none") {
			delete(want.endpoints, "none")
			want.together[key] = slices.DeleteFunc(names, func(name string) bool { return name == "none" })
		}
	}
	return want
}

func portName(name string, number int32, protocol corev1.Protocol, app *string) string {
	return fmt.Sprint(name, ":", number, "/", cmp.Or(protocol, "TCP"), "/", ptr.Deref(app, "-"))
}

// render returns endpoints by their identity, the last of equal ones.
func render(members map[string]known) map[string]string {
	list := slices.SortedFunc(maps.Keys(members), func(a, b string) int {
		if members[a].ready != members[b].ready {
			if members[a].ready {
				return -1
			}
			return 1
		}
		ipA, uidA, _ := strings.Cut(a, "|")
		ipB, uidB, _ := strings.Cut(b, "|")
		return cmp.Or(bytes.Compare([]byte(ipA), []byte(ipB)), strings.Compare(uidA, uidB))
	})
	found := map[string]string{}
	for _, id := range list {
		a := members[id].first
		ip := netutils.ParseIPSloppy(a.IP)
		if ip == nil || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() {
			continue
		}
		out := discoveryv1.Endpoint{
			Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(members[id].ready)},
			NodeName: a.NodeName, TargetRef: a.TargetRef,
		}
		if a.Hostname != "" {
			out.Hostname = &a.Hostname
		}
		found[identity(&out)] = describe(&out)
	}
	return found
}

func identity(e *discoveryv1.Endpoint) string {
	id := fmt.Sprintf("%s|%s", e.Addresses[0], ptr.Deref(e.Hostname, ""))
	if e.TargetRef != nil {
		return id + "|" + e.TargetRef.Namespace + "|" + e.TargetRef.Name
	}
	return id + "||"
}

func describe(e *discoveryv1.Endpoint) string {
	return fmt.Sprintf("%v %t %s %s %v", e.Addresses, *e.Conditions.Ready, ptr.Deref(e.Hostname, ""), ptr.Deref(e.NodeName, ""), e.TargetRef)
}

func TestSlicesOfRandomEndpoints(t *testing.T) {
	stored := newState()
	for seed := range uint64(seeds) {
		r := newRandom(seed)
		e := r.endpoints()
		got, _, err := mirror.Slices(e, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkSlices(t, got, expect(e))
		stored.update(t, e) // which is another change of the same slices
		if r.consistent {
			other, _, err := mirror.Slices(shuffled(e), nil)
			if err != nil || show(t, other) != show(t, got) {
				t.Errorf("another order makes other slices (%v)", err)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: %s", seed, show(t, e))
		}
	}
}

func checkSlices(t *testing.T, got []mirror.Slice, want expected) {
	t.Helper()
	found := map[string]map[string]string{}
	count := map[string]int{} // slices by family and ports
	for _, slice := range got {
		var names []string
		for _, p := range slice.Ports {
			names = append(names, portName(*p.Name, *p.Port, *p.Protocol, p.AppProtocol))
		}
		if len(names) == 0 {
			names = []string{"none"}
		}
		count[string(slice.AddressType)+strings.Join(names, ",")]++
		for i := range slice.Endpoints {
			endpoint := &slice.Endpoints[i]
			for _, name := range names {
				if found[name] == nil {
					found[name] = map[string]string{}
				}
				if found[name][identity(endpoint)] != "" {
					t.Errorf("port %s has %s twice", name, identity(endpoint))
				}
				found[name][identity(endpoint)] = describe(endpoint)
			}
		}
	}
	maps.DeleteFunc(want.endpoints, func(_ string, endpoints map[string]string) bool { return len(endpoints) == 0 })
	if diff := gocmp.Diff(want.endpoints, found); diff != "" {
		t.Errorf("endpoints by port (-want +got)\n%s", diff)
	}
	for _, names := range want.together {
		checkCount(t, names, want.endpoints[names[0]], count)
	}
}

// checkCount holds that ports with the same addresses share their slices, if their names allow
// it, and that there is one slice where one has the room.
func checkCount(t *testing.T, names []string, endpoints map[string]string, count map[string]int) {
	t.Helper()
	four, six := 0, 0
	for id := range endpoints {
		if ip, _, _ := strings.Cut(id, "|"); strings.Contains(ip, ":") {
			six++
		} else {
			four++
		}
	}
	slices.SortFunc(names, func(a, b string) int { // as ports are sorted
		p, q := strings.SplitN(a, ":", 2), strings.SplitN(b, ":", 2)
		return cmp.Or(strings.Compare(p[0], q[0]), slices.Compare(sortKey(a), sortKey(b)))
	})
	groups := []string{strings.Join(names, ",")}
	for i := range names[1:] {
		if strings.Split(names[i], ":")[0] == strings.Split(names[i+1], ":")[0] {
			groups = names
		}
	}
	for _, ports := range groups {
		for family, n := range map[string]int{"IPv4": four, "IPv6": six} {
			if got := count[family+ports]; n <= 1000 && got != min(n, 1) || n > 1000 && got < 2 {
				t.Errorf("%d endpoints of %s %s in %d slices", n, family, ports, got)
			}
		}
	}
}

// sortKey returns protocol, number and application of a port's name.
func sortKey(name string) []string {
	_, rest, _ := strings.Cut(name, ":")
	parts := strings.Split(rest, "/")
	if len(parts) < 3 {
		return parts
	}
	return []string{parts[1], parts[0], strings.TrimPrefix(parts[2], "-")}
}

// A change of one endpoint rewrites the slice that it is in.
func TestOneChange(t *testing.T) {
	stored := newState()
	e := sized(20_000)
	if done := stored.update(t, e); len(done.created) < 20 {
		t.Errorf("%d slices", len(done.created))
	}
	if done := stored.update(t, shuffled(e)); done.total() != 0 {
		t.Errorf("another order: %+v", done)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 2 {
		subset := &e.Subsets[0]
		at := r.IntN(len(subset.Addresses))
		a := subset.Addresses[at]
		without := slices.Delete(slices.Clone(subset.Addresses), at, at+1)

		subset.Addresses, subset.NotReadyAddresses = without, append(subset.NotReadyAddresses, a)
		if done := stored.update(t, e); done.total() != 1 || len(done.updated) != 1 {
			t.Errorf("not ready: %+v", done)
		}
		n := len(subset.NotReadyAddresses) - 1
		subset.NotReadyAddresses[n].NodeName = ptr.To("other")
		if done := stored.update(t, e); done.total() != 1 || len(done.updated) != 1 {
			t.Errorf("another node: %+v", done)
		}
		subset.NotReadyAddresses[n].IP = fmt.Sprintf("10.201.0.%d", r.IntN(256))
		if done := stored.update(t, e); done.total() != 1 || len(done.updated) != 1 {
			t.Errorf("another address: %+v", done)
		}
		subset.NotReadyAddresses = subset.NotReadyAddresses[:n]
		if done := stored.update(t, e); done.total() != 1 || len(done.updated) != 1 {
			t.Errorf("removed: %+v", done)
		}
		a.IP = fmt.Sprintf("10.200.0.%d", r.IntN(256))
		subset.Addresses = append(subset.Addresses, a)
		if done := stored.update(t, e); done.total() != 1 {
			t.Errorf("added: %+v", done)
		}
	}
	// All that remains of it keeps its names.
	before := stored.names()
	e.Subsets[0].Addresses = e.Subsets[0].Addresses[:400]
	e.Subsets[0].NotReadyAddresses = nil
	stored.update(t, e)
	checkNames(t, before, stored.names())
}

func TestMirrors(t *testing.T) {
	for name, tc := range map[string]struct {
		meta metav1.ObjectMeta
		want bool
	}{
		"plain":           {metav1.ObjectMeta{Name: "web"}, true},
		"skipped":         {metav1.ObjectMeta{Name: "web", Labels: map[string]string{"endpointslice.kubernetes.io/skip-mirror": "true"}}, false},
		"another word":    {metav1.ObjectMeta{Name: "web", Labels: map[string]string{"endpointslice.kubernetes.io/skip-mirror": "True"}}, true},
		"a lock":          {metav1.ObjectMeta{Name: "web", Annotations: map[string]string{"control-plane.alpha.kubernetes.io/leader": ""}}, false},
		"a name of 63":    {metav1.ObjectMeta{Name: strings.Repeat("a", 63)}, true},
		"a name of 64":    {metav1.ObjectMeta{Name: strings.Repeat("a", 64)}, false},
		"a name of parts": {metav1.ObjectMeta{Name: "a.b-c"}, true},
		"derived":         {metav1.ObjectMeta{Name: "web", Labels: map[string]string{"endpoints.kubernetes.io/managed-by": "endpointslices.berth"}}, false},
	} {
		if got := mirror.Mirrors(&corev1.Endpoints{ObjectMeta: tc.meta}); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A small object whose ports and addresses would multiply is refused before they do.
func TestTooMany(t *testing.T) {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns"}, Subsets: make([]corev1.EndpointSubset, 1)}
	list := sized(3000).Subsets[0].Addresses
	for i := range int32(3000) {
		p := corev1.EndpointPort{Name: "a", Port: i + 1, Protocol: "TCP"}
		e.Subsets[0].Ports = append(e.Subsets[0].Ports, p)
		e.Subsets = append(e.Subsets, corev1.EndpointSubset{Addresses: list[i%2 : i%2+1], Ports: []corev1.EndpointPort{p}})
	}
	e.Subsets[0].Addresses = list
	if errs := (endpoints.Strategy{}).Validate(e); len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	if _, _, err := mirror.Slices(e, nil); !errors.Is(err, mirror.ErrTooMany) {
		t.Errorf("ports of several subsets: %v", err)
	}
	e.Subsets = e.Subsets[:1] // one slice for each port, as they have one name
	if _, _, err := mirror.Slices(e, nil); !errors.Is(err, mirror.ErrTooMany) {
		t.Errorf("ports of one name: %v", err)
	}
	for i := range e.Subsets[0].Ports {
		e.Subsets[0].Ports[i].Name = fmt.Sprint("a", i)
	}
	if got, _, err := mirror.Slices(e, nil); err != nil || len(got) == 0 {
		t.Errorf("ports of many names: %d slices, %v", len(got), err)
	}
}
