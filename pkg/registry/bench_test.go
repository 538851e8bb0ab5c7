package registry_test

import (
	"fmt"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withAddresses returns Endpoints of n addresses.
func withAddresses(name string, n int) *corev1.Endpoints {
	obj := newEndpoints(name)
	addresses := make([]corev1.EndpointAddress, n)
	for i := range addresses {
		addresses[i].IP = fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
	}
	obj.Subsets[0].Addresses = addresses
	return obj
}

func forSizes(b *testing.B, run func(b *testing.B, s *stores, ns string, addresses int)) {
	for _, n := range []int{1, 1000} {
		b.Run("addresses="+strconv.Itoa(n), func(b *testing.B) {
			s := newStores(b, shared.store)
			ns := s.newNamespace(b)
			b.ReportAllocs()
			run(b, s, ns, n)
		})
	}
}

// benchmarkCreate creates copies of one object under new names.
func benchmarkCreate(b *testing.B, opts *metav1.CreateOptions) {
	forSizes(b, func(b *testing.B, s *stores, ns string, addresses int) {
		obj := withAddresses("", addresses)
		for i := 0; b.Loop(); i++ {
			next := obj.DeepCopy()
			next.Name = "e-" + strconv.Itoa(i)
			if _, _, err := s.endpoints.Create(b.Context(), ns, next, opts); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCreate(b *testing.B) { benchmarkCreate(b, createOptions()) }

func BenchmarkDryRunCreate(b *testing.B) { benchmarkCreate(b, dryRun()) }

// BenchmarkUpdate replaces an object by one with another address.
func BenchmarkUpdate(b *testing.B) {
	forSizes(b, func(b *testing.B, s *stores, ns string, addresses int) {
		obj := withAddresses("a", addresses)
		s.create(b, ns, obj.DeepCopy())
		for i := 0; b.Loop(); i++ {
			next := obj.DeepCopy()
			next.Subsets[0].Addresses[0].IP = fmt.Sprintf("10.255.255.%d", i%250)
			if _, _, _, err := s.endpoints.Update(b.Context(), ns, "a", "", next, updateOptions()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	forSizes(b, func(b *testing.B, s *stores, ns string, addresses int) {
		s.create(b, ns, withAddresses("a", addresses))
		for b.Loop() {
			if _, err := s.endpoints.Get(b.Context(), ns, "a", &metav1.GetOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRejectedCreate is that of a name which is taken.
func BenchmarkRejectedCreate(b *testing.B) {
	forSizes(b, func(b *testing.B, s *stores, ns string, addresses int) {
		obj := withAddresses("a", addresses)
		s.create(b, ns, obj.DeepCopy())
		for b.Loop() {
			if _, _, err := s.endpoints.Create(b.Context(), ns, obj.DeepCopy(), createOptions()); err == nil {
				b.Fatal("created twice")
			}
		}
	})
}
