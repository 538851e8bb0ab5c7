package tenants

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/test/apitest"
)

// benchmarkBindings is how many bindings there are besides that of the user who asks.
const benchmarkBindings = 5000

const aliceToken = "token-of-alice"

// BenchmarkModes shows what a decision by roles costs of a whole request over HTTP/2: a user asks
// whose rights come from a binding in the namespace.
func BenchmarkModes(b *testing.B) {
	for _, mode := range []string{apiserver.ModeAlwaysAllow, apiserver.ModeRBAC} {
		b.Run("mode="+mode, func(b *testing.B) {
			server := startForBenchmark(b, mode)
			path := resourcesUsed[0].path("space-0", "")
			object := func(name string) string { return resourcesUsed[0].object("space-0", name) }
			server.ask(b, aliceToken, http.MethodPost, path, object("web"), http.StatusCreated)
			b.Run("get", func(b *testing.B) {
				for b.Loop() {
					server.ask(b, aliceToken, http.MethodGet, path+"/web", "", http.StatusOK)
				}
			})
			b.Run("create", func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					server.ask(b, aliceToken, http.MethodPost, path, object(fmt.Sprintf("e-%d-%d", b.N, i)), http.StatusCreated)
				}
			})
		})
	}
}

func startForBenchmark(b *testing.B, mode string) *world {
	b.Helper()
	everybody := &ratelimit.Config{Overrides: []ratelimit.Override{{Groups: []string{"system:authenticated"}, Exempt: true}}}
	w := &world{}
	var err error
	w.Server, err = apitest.Start(apitest.Config{
		Tokens: apitest.Token + ",admin,,system:masters\n" + aliceToken + ",alice,,team-a\n", RateLimits: everybody, AuthorizationMode: mode,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		w.Client.CloseIdleConnections()
		if err := w.Close(); err != nil {
			b.Error(err)
		}
	})
	w.create(b, "/api/v1/namespaces", `{"metadata":{"name":"space-0"}}`)
	const bindingsPath = rbacPath + "/namespaces/space-0/rolebindings"
	bind := func(name, subject string) {
		w.create(b, bindingsPath, fmt.Sprintf(`{"metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edit"},"subjects":[{"kind":"User","name":%q}]}`, name, subject))
	}
	for i := range benchmarkBindings {
		bind(fmt.Sprintf("other-%d", i), fmt.Sprintf("user-%d", i))
	}
	bind("alice", "alice")
	w.settle(b)
	return w
}
