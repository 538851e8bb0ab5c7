package mirroring

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berth-project/berth/test/apitest"
)

// BenchmarkLarge shows what the mirror adds to writes of Endpoints with 20,000 addresses.
func BenchmarkLarge(b *testing.B) {
	server, err := apitest.Start(apitest.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Close(); err != nil {
			b.Error(err)
		}
	})
	at := &atomic.Pointer[endpoint]{}
	at.Store(&endpoint{server.URL, apitest.Token, server.Client})
	w := &writer{at: at, answers: new(answers)}
	send := func(method, path, body string, want int) {
		b.Helper()
		if code, answer := w.send(b.Context(), b, method, "/api/v1/namespaces/default/"+path, body); code != want {
			b.Fatalf("%s %s: %d %.300s", method, path, code, answer)
		}
	}
	for _, mirrored := range []bool{false, true} {
		b.Run(fmt.Sprintf("mirrored=%t", mirrored), func(b *testing.B) {
			name := fmt.Sprintf("large-%t", mirrored)
			if mirrored {
				send(http.MethodPut, "services/"+name, `{"metadata":{"name":"`+name+`"},"spec":{"clusterIP":"None"}}`, http.StatusCreated)
				defer send(http.MethodDelete, "services/"+name, "", http.StatusOK)
			}
			bodies := [2]string{large(name, "10.1.0.7"), large(name, "10.1.0.8")}
			b.Run("create", func(b *testing.B) {
				for b.Loop() {
					send(http.MethodPost, "endpoints", bodies[0], http.StatusCreated)
					b.StopTimer()
					send(http.MethodDelete, "endpoints/"+name, "", http.StatusOK)
					b.StartTimer()
				}
			})
			send(http.MethodPost, "endpoints", bodies[0], http.StatusCreated)
			b.Run("update", func(b *testing.B) {
				for i := 1; b.Loop(); i++ {
					send(http.MethodPut, "endpoints/"+name, bodies[i%2], http.StatusOK)
				}
			})
		})
	}
}

// large is the JSON of Endpoints with 20,000 addresses, one of which is given.
func large(name, ip string) string {
	var addresses strings.Builder
	fmt.Fprintf(&addresses, `{"ip":"%s"}`, ip)
	for i := 1; i < 20_000; i++ {
		fmt.Fprintf(&addresses, `,{"ip":"10.2.%d.%d","nodeName":"node-%d"}`, i/250, i%250, i%100)
	}
	return `{"metadata":{"name":"` + name + `"},"subsets":[{"addresses":[` + addresses.String() + `],"ports":[{"name":"http","port":80}]}]}`
}
