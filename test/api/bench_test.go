package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// addressed is Endpoints of n addresses as JSON.
func addressed(name string, n int) []byte {
	var b strings.Builder
	b.WriteString(`{"metadata":{"name":"` + name + `"},"subsets":[{"addresses":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"ip":"10.%d.%d.%d"}`, i>>16, i>>8&255, i&255)
	}
	b.WriteString(`],"ports":[{"port":80}]}]}`)
	return []byte(b.String())
}

// benchmark sends one request after the other on one connection, each with its answer.
// The time is that of client and server together.
func benchmark(b *testing.B, code int, request func(b *testing.B, ns string, addresses, i int) *http.Request) {
	for _, n := range []int{1, 1000} {
		b.Run("addresses="+strconv.Itoa(n), func(b *testing.B) {
			client, ns := newClient(b, shared, false), newNamespace(b, shared)
			send(b, client, newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), addressed("taken", n)))
			send(b, client, newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), body("last"), "X-Auth-Token", spentToken))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if a := send(b, client, request(b, ns, n, i)); a.code != code {
					b.Fatalf("%d %s", a.code, a.body)
				}
			}
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	benchmark(b, http.StatusCreated, func(b *testing.B, ns string, addresses, i int) *http.Request {
		return newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), addressed("e-"+strconv.Itoa(i), addresses))
	})
}

func BenchmarkDryRunCreate(b *testing.B) {
	benchmark(b, http.StatusCreated, func(b *testing.B, ns string, addresses, i int) *http.Request {
		return newRequest(b, shared, http.MethodPost, endpointsPath(ns, "")+"?dryRun=All", addressed("e-"+strconv.Itoa(i), addresses))
	})
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, http.StatusOK, func(b *testing.B, ns string, _, _ int) *http.Request {
		return newRequest(b, shared, http.MethodGet, endpointsPath(ns, "taken"), nil)
	})
}

// BenchmarkRejected is that of a token beyond its limit.
func BenchmarkRejected(b *testing.B) {
	var sent []byte
	benchmark(b, http.StatusTooManyRequests, func(b *testing.B, ns string, addresses, i int) *http.Request {
		if i == 0 {
			sent = addressed("new", addresses)
		}
		return newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), sent, "X-Auth-Token", spentToken)
	})
}
