package attack

import (
	"fmt"
	"net/http"
	"strings"
)

// stored fill etcd or the server's memory with what stays, or empty it again.
var stored = []attack{
	{name: "objects of 3 MB that compress well", run: func(a *attacker) {
		a.parallel(8, func(worker, n int) {
			a.create(filled(fmt.Sprintf(`{"metadata":{"name":"o-%d-%d"},"subsets":[{"ports":[{"port":1}],"addresses":[{"ip":"10.0.0.1"}`, worker, n), `,{"ip":"10.0.0.1"}`, `]}]}`))
		})
	}},
	{name: "changes of an object of 3 MB", prepare: object(26_000), run: func(a *attacker) {
		a.parallel(4, func(worker, n int) {
			a.patch(mergePatch, fmt.Sprintf(`{"metadata":{"labels":{"n":"%d-%d"}}}`, worker, n))
		})
	}},
	{name: "objects by the thousand", run: flood(1000, func(a *attacker, n int) { a.create(smallObject(fmt.Sprintf("object-%d", n))) })},
	{name: "generated names", run: flood(1000, func(a *attacker, _ int) {
		a.create(`{"metadata":{"generateName":"` + strings.Repeat("a", 200) + `"}}`)
	})},
	{name: "namespaces by the thousand", run: flood(1000, func(a *attacker, n int) {
		a.do(http.MethodPost, "/api/v1/namespaces", fmt.Sprintf(`{"metadata":{"name":"%s-%d"}}`, a.namespace, n))
	})},
	{name: "collections deleted again and again", prepare: object(1), run: func(a *attacker) {
		a.paced(32, 500, func(worker, n int) {
			if worker%2 == 0 {
				a.create(smallObject(fmt.Sprintf("object-%d-%d", worker, n)))
			} else {
				a.do(http.MethodDelete, endpointsIn(a.namespace), "")
			}
		})
	}},
	{name: "collections deleted as a dry run", crowd: true, run: func(a *attacker) {
		a.parallel(16, func(int, int) { a.do(http.MethodDelete, crowdPath+"?dryRun=All", "") })
	}},
	{name: "namespaces made and deleted", run: func(a *attacker) {
		a.paced(8, 100, func(worker, n int) {
			name := fmt.Sprintf("short-%d-%d", worker, n)
			a.do(http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"`+name+`"}}`)
			a.do(http.MethodDelete, "/api/v1/namespaces/"+name, "")
		})
	}},
}
