package mirror_test

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// random makes objects in which everything occurs several times.
type random struct {
	*rand.Rand
	// addresses is how many there are to choose from.
	addresses int
	// consistent: the address and the uid of the target decide all else.
	consistent bool
}

func newRandom(seed uint64) random {
	r := random{Rand: rand.New(rand.NewPCG(seed, 7)), addresses: 6}
	r.consistent = r.IntN(2) == 0
	if r.IntN(12) == 0 {
		r.addresses = 3000
	}
	return r
}

func pick[T any](r random, choices ...T) T { return choices[r.IntN(len(choices))] }

// repeated returns a list of 0 to n items.
func repeated[T any](r random, n int, item func() T) []T {
	var list []T
	for range r.IntN(n + 1) {
		list = append(list, item())
	}
	return list
}

func (r random) ip() string {
	if r.IntN(60) == 0 {
		return pick(r, "127.0.0.1", "fe80::1", "not an ip", "", "10.0.0.1.2", "0.0.0.0", "fe80::1%eth0")
	}
	n := r.IntN(r.addresses)
	return fmt.Sprintf(pick(r, "10.0.%d.%d", "10.0.%d.%d", "010.00.%d.%d", "::ffff:10.0.%d.%d", "2001:db8::%x:%x", "2001:DB8:0::%x:0%x"), n>>8, n&255)
}

func (r random) address() corev1.EndpointAddress {
	a := corev1.EndpointAddress{IP: r.ip()}
	if r.IntN(3) == 0 {
		a.TargetRef = &corev1.ObjectReference{Kind: "Pod", UID: pick[types.UID](r, "", "u1", "u2")}
	}
	if r.consistent {
		if a.TargetRef != nil {
			a.TargetRef.UID = pick[types.UID](r, "u1", "u2")
			a.TargetRef.Name = string(a.TargetRef.UID)
		}
		return a
	}
	if a.TargetRef != nil {
		a.TargetRef.Namespace, a.TargetRef.Name = pick(r, "", "ns"), pick(r, "", "pod-1", "pod-2")
	}
	a.Hostname = pick(r, "", "", "a", "b")
	a.NodeName = pick(r, nil, ptr.To("node-1"), ptr.To("node-2"))
	return a
}

func (r random) port() corev1.EndpointPort {
	return corev1.EndpointPort{
		Name: pick(r, "a", "b", "c", ""), Port: pick[int32](r, 80, 81), Protocol: pick[corev1.Protocol](r, "", "TCP", "UDP"),
		AppProtocol: pick(r, nil, nil, ptr.To("http")),
	}
}

func (r random) endpoints() *corev1.Endpoints {
	n := r.addresses
	return &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "u"},
		Subsets: repeated(r, 5, func() corev1.EndpointSubset {
			return corev1.EndpointSubset{
				Addresses: repeated(r, n, r.address), NotReadyAddresses: repeated(r, n/3, r.address), Ports: repeated(r, 3, r.port),
			}
		}),
	}
}

// slice returns one by hand, which is mostly valid.
func (r random) slice(name string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: pick(r, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN),
	}
	if r.IntN(6) == 0 {
		s.Labels[discoveryv1.LabelManagedBy] = pick(r, "endpointslicemirroring-controller.k8s.io", "me")
	}
	for _, p := range repeated(r, 3, r.port) {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{
			Name: pick(r, &p.Name, nil), Port: pick(r, &p.Port, &p.Port, &p.Port, nil, ptr.To[int32](0), ptr.To[int32](70000)),
			Protocol: ptr.To(pick[corev1.Protocol](r, "TCP", "UDP", "SCTP")), AppProtocol: p.AppProtocol,
		})
	}
	for _, a := range repeated(r, min(r.addresses, 1000), r.address) {
		e := discoveryv1.Endpoint{Addresses: []string{a.IP}, NodeName: a.NodeName, TargetRef: a.TargetRef}
		if a.Hostname != "" {
			e.Hostname = &a.Hostname
		}
		e.Conditions.Ready = pick(r, nil, ptr.To(true), ptr.To(false))
		e.Addresses = append(e.Addresses, repeated(r, 1, r.ip)...)
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

// shuffled returns e with its subsets, addresses and ports in another order.
func shuffled(e *corev1.Endpoints) *corev1.Endpoints {
	r := rand.New(rand.NewPCG(1, 2))
	e = e.DeepCopy()
	shuffle(r, e.Subsets)
	for i := range e.Subsets {
		shuffle(r, e.Subsets[i].Addresses)
		shuffle(r, e.Subsets[i].NotReadyAddresses)
		shuffle(r, e.Subsets[i].Ports)
	}
	return e
}

func shuffle[T any](r *rand.Rand, list []T) {
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}
