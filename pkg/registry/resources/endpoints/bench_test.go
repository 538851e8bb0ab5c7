package endpoints

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sized returns valid Endpoints of n addresses with every field that an address may have;
// each fourth is IPv6.
func sized(n int) *corev1.Endpoints {
	addresses := make([]corev1.EndpointAddress, n)
	for i := range addresses {
		node := fmt.Sprintf("node-%d.example.com", i%100)
		ip := fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)
		if i%4 == 3 {
			ip = fmt.Sprintf("2001:db8::%x", i)
		}
		addresses[i] = corev1.EndpointAddress{
			IP: ip, Hostname: fmt.Sprintf("host-%d", i), NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprintf("pod-%d", i)},
		}
	}
	return &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "default", ResourceVersion: "5", UID: "u1",
			Labels: map[string]string{"app": "web"},
		},
		Subsets: []corev1.EndpointSubset{{
			Addresses: addresses,
			Ports:     []corev1.EndpointPort{{Name: "http", Port: 80, Protocol: "TCP"}, {Name: "dns", Port: 53, Protocol: "UDP"}},
		}},
	}
}

// TestAddressesCostNoMemory compares the allocations for few and for many valid addresses.
func TestAddressesCostNoMemory(t *testing.T) {
	few, many := sized(1), sized(2000)
	for _, tc := range []struct {
		name string
		run  func(e *corev1.Endpoints)
	}{
		{"Validate", func(e *corev1.Endpoints) { Strategy{}.Validate(e) }},
		{"ValidateUpdate", func(e *corev1.Endpoints) { Strategy{}.ValidateUpdate(e, e) }},
		{"Warnings", func(e *corev1.Endpoints) { Strategy{}.Warnings(e, nil) }},
	} {
		want := testing.AllocsPerRun(20, func() { tc.run(few) })
		got := testing.AllocsPerRun(20, func() { tc.run(many) })
		if got > want+2 { // regular expressions draw on a pool, which the collector may empty
			t.Errorf("%s: %v allocations for 2000 addresses, %v for one", tc.name, got, want)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	benchmark(b, func(e *corev1.Endpoints) int { return len(Strategy{}.Validate(e)) })
}

func BenchmarkValidateUpdate(b *testing.B) {
	benchmark(b, func(e *corev1.Endpoints) int { return len(Strategy{}.ValidateUpdate(e, e)) })
}

func BenchmarkWarnings(b *testing.B) {
	benchmark(b, func(e *corev1.Endpoints) int { return len(Strategy{}.Warnings(e, nil)) })
}

func benchmark(b *testing.B, run func(*corev1.Endpoints) int) {
	for _, n := range []int{1, 1000, 20000} {
		e := sized(n)
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if found := run(e); found != 0 {
					b.Fatalf("%d faults or warnings in a valid object", found)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/address")
		})
	}
}
