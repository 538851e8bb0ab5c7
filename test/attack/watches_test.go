package attack

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const watchPath = "/api/v1/endpoints?watch=1"

// watches are opened by the thousand, and stay.
var watches = []attack{
	{name: "watches by the thousand", run: watchesOf(func(int) string { return watchPath })},
	{name: "watches with a selector of 57 KB", run: watchesOf(func(n int) string { return watchPath + "&labelSelector=" + selector(n) })},
	{name: "lists with a selector of 57 KB", crowd: true, run: flood(200, func(a *attacker, n int) { a.get(crowdPath + "?labelSelector=" + selector(n)) })},
	{name: "lists with 57 KB of field selectors", crowd: true, run: flood(200, func(a *attacker, n int) {
		a.get(fmt.Sprintf("%s?fieldSelector=metadata.name!=n%d%s", crowdPath, n, strings.Repeat(",metadata.name!=a", 3300)))
	})},
	{name: "watches for ever, and for no time at all", run: watchesOf(func(n int) string {
		return watchPath + "&timeoutSeconds=" + []string{"4000000000", "9223372036854775807", "-1", "0"}[n%4]
	})},
	{name: "watches that begin with everything", crowd: true, run: func(a *attacker) {
		a.paced(500, 100, func(int, int) { a.get(initialEvents) })
	}},
	{name: "watches that nobody reads", crowd: true, run: func(a *attacker) {
		a.hold(300, func(int) { a.unread(initialEvents) })
	}},
	{name: "watches opened and given up", run: flood(1000, func(a *attacker, _ int) { a.abort(watchPath, 5*time.Millisecond) })},
	{name: "lists given up half-way", crowd: true, run: flood(200, func(a *attacker, _ int) { a.abort(crowdPath, 5*time.Millisecond) })},
	{name: "a large object that changes before 200 watches", prepare: object(10_000), run: func(a *attacker) {
		forms := []string{"application/json", asMetadata, asTable, asProtobuf + ";stream=watch"}
		a.watchChanges(func(worker int) { a.get(endpointsIn(a.namespace)+"?watch=1", "Accept", forms[worker%len(forms)]) })
	}},
	{name: "a large object that changes before 200 watches as tables", prepare: object(10_000), run: func(a *attacker) {
		a.watchChanges(func(worker int) {
			a.get(endpointsIn(a.namespace)+"?watch=1&includeObject="+[]string{"Metadata", "Object"}[worker%2], "Accept", asTable)
		})
	}},
	{name: "timeouts of every length", crowd: true, run: flood(300, func(a *attacker, n int) {
		a.get(crowdPath+"?timeout="+[]string{"1ns", "1ms", "0.5s", "9999h", "-1s", "292y"}[n%6], "Accept", asYAML)
	})},
}

const initialEvents = crowdPath + "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"

// watchesOf opens a thousand watches a second, which stay open.
func watchesOf(path func(n int) string) func(*attacker) {
	return func(a *attacker) {
		a.paced(12_000, rate.Limit(1000), func(worker, n int) { a.get(path(n*12_000 + worker)) })
	}
}

// watchChanges changes the object that is named object, before 200 watches.
func (a *attacker) watchChanges(watch func(worker int)) {
	go a.paced(1, 20, func(_, n int) { a.patch(mergePatch, fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, n)) })
	a.paced(200, 200, func(worker, _ int) { watch(worker) })
}

// selector is a label selector with 6,500 terms that no other one shares.
func selector(n int) string {
	return url.QueryEscape(fmt.Sprintf("n%d!=x", n)) + strings.Repeat(",!a.b.c", 8100)
}

// abort begins a request and gives it up after a while.
func (a *attacker) abort(path string, after time.Duration) {
	aborted := *a.client
	aborted.Timeout = after
	code, _, err := exchange(a.ctx, &aborted, a.url, a.token, http.MethodGet, path, "")
	if err != nil {
		code = 0
	}
	a.answers.add(code)
}
