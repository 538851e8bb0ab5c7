package attack

import (
	"fmt"
	"net/http"
	"strings"
)

const (
	jsonPatch      = "json-patch+json"
	mergePatch     = "merge-patch+json"
	strategicPatch = "strategic-merge-patch+json"
	applyPatch     = "apply-patch+yaml"
)

// patches are small and make much work.
var patches = []attack{
	{name: "merge patch nested 9,990 deep", prepare: object(1), run: patchesOf(mergePatch, nested("a", 9990))},
	{name: "strategic patch nested 9,990 deep", prepare: object(1), run: patchesOf(strategicPatch, nested("metadata", 9990))},
	{name: "apply nested 9,990 deep", prepare: object(1), run: patchesOf(applyPatch, nested("a", 9990))},
	{name: "merge patch of 3 MB, 90 deep", prepare: object(1), run: patchesOf(mergePatch,
		numbered(`{"metadata":{"name":"object"}`, `,"l%06d":`+nested("a", 90), `}`))},
	{name: "merge patch of 3 MB", prepare: object(1), run: patchesOf(mergePatch, numbered(`{"metadata":{"annotations":{"a":"b"`, `,"l%06d":null`, `}}}`))},
	{name: "apply to an object with as many finalizers as it may have", prepare: func(a *attacker) {
		for _, n := range []int{100_000, 10_000, 1000, 500, 200, 100} { // the first one that is taken stays
			a.create(finalizers(n))
		}
	}, run: patchesOf(applyPatch, `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"object","finalizers":["x.io/own"]}}`)},
	{name: "apply with 100,000 finalizers", prepare: object(1), run: patchesOf(applyPatch, strings.Replace(finalizers(100_000), "{", `{"apiVersion":"v1","kind":"Endpoints",`, 1))},
	{name: "apply of 20,000 addresses", prepare: object(20_000), run: patchesOf(applyPatch, strings.Replace(objectOf("object", 20_000), "{", `{"apiVersion":"v1","kind":"Endpoints",`, 1))},
	{name: "JSON patch with 10,000 moves", prepare: object(25_000), run: patchesOf(jsonPatch,
		operations(10_000, `{"op":"move","from":"/subsets/0/addresses/0","path":"/subsets/0/addresses/24000"}`))},
	{name: "JSON patch with 10,000 insertions at the front", prepare: object(25_000), run: patchesOf(jsonPatch,
		operations(10_000, `{"op":"add","path":"/subsets/0/addresses/0","value":{"ip":"10.0.0.1"}}`))},
	{name: "JSON patch that doubles by copies", prepare: object(1), run: patchesOf(jsonPatch,
		operations(1000, `{"op":"copy","from":"/subsets","path":"/subsets/-"}`))},
	{name: "JSON patch with 10,000 tests of a large list", prepare: object(25_000), run: patchesOf(jsonPatch,
		operations(10_000, `{"op":"test","path":"/subsets/0","value":{}}`))},
	{name: "JSON patch with long paths", prepare: object(1), run: patchesOf(jsonPatch,
		operations(1000, `{"op":"add","path":"`+strings.Repeat("/a", 1400)+`","value":1}`))},
	{name: "strategic patch with an order of 100,000", prepare: object(1), run: patchesOf(strategicPatch,
		numbered(`{"metadata":{"$setElementOrder/finalizers":["a"`, `,"x.io/f%06d"`, `],"finalizers":["x.io/own"]}}`))},
	{name: "patches that conflict", prepare: object(1), run: func(a *attacker) {
		a.parallel(50, func(worker, n int) {
			a.patch(mergePatch, fmt.Sprintf(`{"metadata":{"labels":{"n":"%d-%d"}}}`, worker, n))
		})
	}},
	{name: "a field manager of its own for each write", prepare: object(1), run: func(a *attacker) {
		a.paced(4, 100, func(worker, n int) {
			a.do(http.MethodPatch, endpointsIn(a.namespace)+"/object", fmt.Sprintf(`{"metadata":{"labels":{"l%d-%d":"x"}}}`, worker, n),
				"Content-Type", "application/"+mergePatch, "User-Agent", fmt.Sprintf("agent-%d-%d", worker, n))
		})
	}},
	{name: "an applying manager of its own for each write", prepare: object(1), run: func(a *attacker) {
		a.paced(4, 100, func(worker, n int) {
			body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"object","labels":{"l%d-%d":"x"}}}`, worker, n)
			path := fmt.Sprintf("%s/object?fieldManager=manager-%d-%d", endpointsIn(a.namespace), worker, n)
			a.do(http.MethodPatch, path, body, "Content-Type", "application/"+applyPatch)
		})
	}},
}

// object prepares an object with that many addresses, named object.
func object(addresses int) func(*attacker) {
	return func(a *attacker) { a.create(objectOf("object", addresses)) }
}

func patchesOf(kind, body string) func(*attacker) {
	return func(a *attacker) {
		a.parallel(8, func(int, int) { a.patch(kind, body) })
	}
}

func nested(name string, depth int) string {
	return strings.Repeat(`{"`+name+`":`, depth) + "1" + strings.Repeat("}", depth)
}

func operations(n int, operation string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(operation+",", n), ",") + "]"
}

// finalizers is an object that has that many.
func finalizers(n int) string {
	var b strings.Builder
	b.WriteString(`{"metadata":{"name":"object","finalizers":["x.io/f"`)
	for i := range n {
		fmt.Fprintf(&b, `,"x.io/f%d"`, i)
	}
	return b.String() + `]}}`
}
