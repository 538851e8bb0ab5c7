package attack

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// unauthenticated need no valid token, except where they say so.
var unauthenticated = []attack{
	{name: "guessed tokens from the victim's address", near: true, short: time.Second, run: anonymously(4000, func(a *attacker, n int) {
		a.get(endpointsIn("default"), "Authorization", fmt.Sprintf("Bearer guess-%d", n))
	})},
	{name: "guessed tokens beside a valid one", near: true, short: time.Second, run: flood(4000, func(a *attacker, n int) {
		if n%10 == 0 {
			a.get(endpointsIn("default"))
		} else {
			a.get(endpointsIn("default"), "X-Auth-Token", fmt.Sprintf("guess-%d", n))
		}
	})},
	{name: "passwords guessed from the victim's address", near: true, run: anonymously(2000, func(a *attacker, n int) {
		a.logIn("alice", fmt.Sprintf("guess-%d", n))
	})},
	{name: "log-ins of users that there are not", run: anonymously(2000, func(a *attacker, n int) { a.logIn(fmt.Sprintf("user-%d", n), "guess") })},
	{name: "log-ins again and again", run: flood(500, func(a *attacker, _ int) { a.logIn("alice", "change-me-alice") })},
	{name: "log-ins of 60 KB", run: anonymously(2000, func(a *attacker, _ int) { a.logIn("alice", strings.Repeat("[", 60<<10)) })},
	{name: "tokens made up by the form", run: anonymously(4000, func(a *attacker, n int) {
		a.get(endpointsIn("default"), "X-Auth-Token", fmt.Sprintf("berth_%042dA", n))
	})},
	{name: "paths of 60 KB without a token", run: anonymously(2000, func(a *attacker, _ int) { a.get("/api/v1/" + strings.Repeat("a", 60<<10)) })},
	{name: "queries of 60 KB without a token", run: anonymously(2000, func(a *attacker, _ int) { a.get("/version?" + strings.Repeat("a=b&", 15<<10)) })},
	{name: "paths of 60 KB with a token", run: flood(2000, func(a *attacker, _ int) { a.get("/api/v1/" + strings.Repeat("a", 60<<10)) })},
	{name: "headers of 60 KB", run: anonymously(2000, func(a *attacker, _ int) { a.get("/livez", "Audit-Id", strings.Repeat("\xff", 60<<10)) })},
	{name: "Accept of 60 KB", run: flood(2000, func(a *attacker, _ int) {
		a.get(endpointsIn("default"), "Accept", strings.Repeat("application/json;q=0.1,", 2600))
	})},
	{name: "health and version", run: anonymously(5000, func(a *attacker, n int) { a.get([]string{"/livez", "/readyz", "/healthz", "/version"}[n%4]) })},
	{name: "methods that do not exist", run: flood(3000, func(a *attacker, n int) { a.do(fmt.Sprintf("METHOD%d", n), endpointsIn("default"), "") })},
	{name: "other users impersonated", run: flood(3000, func(a *attacker, n int) {
		a.get(endpointsIn("default"), "Impersonate-User", fmt.Sprintf("user-%d", n), "Impersonate-Group", "system:masters")
	})},
	{name: "a user agent of its own for each request", run: flood(3000, func(a *attacker, n int) {
		a.do(http.MethodPost, endpointsIn(a.namespace)+"?dryRun=All", smallObject("object"), "User-Agent", fmt.Sprintf("%d%s", n, strings.Repeat("u", 1000)))
	})},
}

// logIn tries to get a token for the project of the user alice.
func (a *attacker) logIn(user, password string) {
	body := fmt.Sprintf(`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"domain":{"id":"default"},"password":%q}}},"scope":{"project":{"name":"team-a"}}}}`, user, password)
	a.do(http.MethodPost, "/v3/auth/tokens", body, "Content-Type", "application/json")
}

// anonymously is a flood without a token.
func anonymously(perSecond rate.Limit, send func(a *attacker, n int)) func(*attacker) {
	return func(a *attacker) {
		a.token = ""
		flood(perSecond, send)(a)
	}
}
