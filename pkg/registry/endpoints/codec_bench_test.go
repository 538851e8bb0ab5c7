package endpoints

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// body is Endpoints of n addresses as a controller sends them.
func body(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"ep-1","namespace":"bench","labels":{"app":"bench"}},"subsets":[{"addresses":[`)
	for a := range n {
		if a > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"ip":"10.%d.%d.%d","nodeName":"node-%d","targetRef":{"kind":"Pod","name":"nginx-686bccd6f-%05d","namespace":"bench","uid":"ae417968-4f69-40da-9228-2434%08d"}}`, 1, a/250, 1+a%250, a%100, a, a)
	}
	b.WriteString(`],"ports":[{"name":"service0","port":80,"protocol":"TCP"}]}]}`)
	return []byte(b.String())
}

func forBodies(b *testing.B, run func(b *testing.B, data []byte)) {
	for _, n := range []int{1, 1000, 20000} {
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			data := body(n)
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			run(b, data)
		})
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	forBodies(b, func(b *testing.B, data []byte) {
		for b.Loop() {
			if !decodeJSON(data, &corev1.Endpoints{}) {
				b.Fatal("refused")
			}
		}
	})
}

func BenchmarkEncodeJSON(b *testing.B) {
	forBodies(b, func(b *testing.B, data []byte) {
		e := &corev1.Endpoints{}
		decodeJSON(data, e)
		for b.Loop() {
			if _, err := encodeJSON(e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
