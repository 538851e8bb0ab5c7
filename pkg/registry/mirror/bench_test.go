package mirror_test

import (
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry/mirror"
)

// sized returns Endpoints of n addresses with every field that an address may have; each
// tenth is IPv6, each twentieth not ready.
func sized(n int) *corev1.Endpoints {
	e := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "u1", Labels: map[string]string{"app": "web"}},
		Subsets: []corev1.EndpointSubset{{
			Ports: []corev1.EndpointPort{{Name: "http", Port: 80, Protocol: "TCP"}, {Name: "dns", Port: 53, Protocol: "UDP"}},
		}},
	}
	subset := &e.Subsets[0]
	for i := range n {
		a := corev1.EndpointAddress{
			IP: fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255), Hostname: fmt.Sprintf("host-%d", i),
			NodeName:  ptr.To(fmt.Sprintf("node-%d", i%100)),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: fmt.Sprintf("pod-%d", i), UID: "ae417968-4f69-40da-9228-2434671e9c63"},
		}
		if i%10 == 9 {
			a.IP = fmt.Sprintf("2001:db8::%x", i)
		}
		if i%20 == 0 {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, a)
		} else {
			subset.Addresses = append(subset.Addresses, a)
		}
	}
	return e
}

func BenchmarkSlices(b *testing.B) {
	full := sized(20_000)
	plain := full.DeepCopy() // no more than addresses, in two subsets
	list := plain.Subsets[0].Addresses
	for i := range list {
		list[i] = corev1.EndpointAddress{IP: list[i].IP}
	}
	plain.Subsets = []corev1.EndpointSubset{
		{Addresses: list[:len(list)/2], Ports: plain.Subsets[0].Ports[:1]},
		{Addresses: list[len(list)/2:], Ports: plain.Subsets[0].Ports[1:]},
	}
	for name, e := range map[string]*corev1.Endpoints{"full": full, "shuffled": shuffled(full), "plain": plain} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := mirror.Slices(e, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSummarize(b *testing.B) {
	found, _, err := mirror.Slices(sized(900), nil)
	if err != nil {
		b.Fatal(err)
	}
	data, err := json.Marshal(found[0])
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := mirror.Summarize(data); err != nil {
			b.Fatal(err)
		}
	}
}
