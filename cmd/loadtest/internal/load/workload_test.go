package load

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
	corev1 "k8s.io/api/core/v1"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
)

func testWorkload(t *testing.T, weights string) *workload {
	t.Helper()
	c := Config{Namespace: "loadtest", Objects: 7, Addresses: 3}
	if err := c.Mix.Set(weights); err != nil {
		t.Fatal(err)
	}
	return newWorkload(&c, client.NewTokens(nil), "r1")
}

// Each request makes sense: creates use new names, deletes take what was created for sure
// and only once, and all others work on what was prepared.
func TestWorkload(t *testing.T) {
	w := testWorkload(t, "create=3,get=2,update=2,patch=2,apply=2,list=1,delete=3")
	created, deleted, numbers, seen := map[string]bool{}, map[string]bool{}, map[uint64]bool{}, Mix{}
	for i := range 3000 {
		op := w.next(time.Now())
		seen[op.verb]++
		if op.write > 0 && numbers[op.write] {
			t.Fatalf("the write %d is there twice", op.write)
		}
		numbers[op.write] = true
		prepared := strings.HasPrefix(op.name, "lt-r1-p")
		switch op.verb {
		case verbCreate:
			if _, twice := created[op.name]; twice || prepared || op.write == 0 {
				t.Fatalf("%+v: is there already", op)
			}
			created[op.name] = i%3 != 0 // every third one fails
			if created[op.name] {
				w.succeeded(op)
			}
		case verbDelete:
			if !created[op.name] || deleted[op.name] || op.write != 0 {
				t.Fatalf("%+v: is not there", op)
			}
			if number, ok := w.createdNumber(op.name); !ok || number != op.number {
				t.Fatalf("%+v: the name tells the number %d, %v", op, number, ok)
			}
			deleted[op.name] = true
		case verbList:
			if op.name != "" || op.write != 0 {
				t.Fatalf("%+v", op)
			}
		default:
			if !prepared || (op.write > 0) != (op.verb != verbGet) {
				t.Fatalf("%+v: is no prepared object", op)
			}
		}
	}
	for v, n := range seen {
		if n < 100 {
			t.Errorf("%s was sent %d times", verb(v), n)
		}
	}
	if len(deleted) < 300 {
		t.Errorf("%d were deleted", len(deleted))
	}
}

func TestWorkloadWithNothingToDelete(t *testing.T) {
	w := testWorkload(t, "delete=1")
	for i, want := range []verb{verbCreate, verbDelete, verbCreate, verbDelete} {
		op := w.next(time.Now())
		if op.verb != want {
			t.Errorf("request %d is a %s, want a %s", i, op.verb, want)
		}
		w.succeeded(op)
	}
	if w.swappedDeletes() != 2 {
		t.Errorf("%d deletes became creates, want 2", w.swappedDeletes())
	}
}

func TestWorkloadIsRepeatable(t *testing.T) {
	run := func(seed uint64) (text string) {
		w := newWorkload(&Config{Mix: DefaultMix, Objects: 100, Seed: seed}, client.NewTokens(nil), "r")
		for range 200 {
			op := w.next(time.Now())
			w.succeeded(op)
			text += op.verb.String() + op.name + " "
		}
		return text
	}
	first, again, other := run(1), run(1), run(2)
	if first != again || first == other {
		t.Error("the seed does not decide the requests")
	}
}

func TestWorkloadHoldsTokensBack(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, honor := range []bool{true, false} {
		w := testWorkload(t, "get=1")
		w.honor = honor
		w.tokens.Hold(0, now.Add(time.Second))
		if op := w.next(now); op.heldBack != honor {
			t.Errorf("honor %v: held back %v", honor, op.heldBack)
		}
		if op := w.next(now.Add(time.Second)); op.heldBack {
			t.Errorf("honor %v: held back for too long", honor)
		}
	}
}

// Every request is what Kubernetes' API documents.
func TestTargets(t *testing.T) {
	const collection = "/api/v1/namespaces/loadtest/endpoints"
	w := testWorkload(t, "get=1")
	cl, err := client.New(&client.Config{Server: "https://h", Tokens: []string{"secret"}}, "agent/1")
	if err != nil {
		t.Fatal(err)
	}
	for v, want := range [verbCount]struct{ method, path, contentType string }{
		verbCreate: {http.MethodPost, collection, "application/json"},
		verbGet:    {http.MethodGet, collection + "/n", ""},
		verbUpdate: {http.MethodPut, collection + "/n", "application/json"},
		verbPatch:  {http.MethodPatch, collection + "/n", "application/merge-patch+json"},
		verbApply:  {http.MethodPatch, collection + "/n?force=true&fieldManager=berth-loadtest", "application/apply-patch+yaml"},
		verbList:   {http.MethodGet, collection + "?limit=500", ""},
		verbDelete: {http.MethodDelete, collection + "/n", ""},
	} {
		t.Run(verb(v).String(), func(t *testing.T) {
			op := &operation{verb: verb(v), name: "n", write: 5}
			var got vegeta.Target
			w.target(op, cl, &got)
			if got.Method != want.method || got.URL != "https://h"+want.path || got.Header.Get("Content-Type") != want.contentType {
				t.Errorf("got %s %s with %v", got.Method, got.URL, got.Header)
			}
			if got.Header.Get("Authorization") != "Bearer secret" || got.Header.Get("Accept") != "application/json" || got.Header.Get("User-Agent") != "agent/1" {
				t.Errorf("the header is %v", got.Header)
			}
			if (len(got.Body) > 0) != (want.contentType != "") {
				t.Fatalf("the body is %s", got.Body)
			}
			if len(got.Body) == 0 {
				return
			}
			var object corev1.Endpoints
			if err := json.Unmarshal(got.Body, &object); err != nil {
				t.Fatalf("%v in %s", err, got.Body)
			}
			if number, ok := w.writeNumber(object.Annotations[writeAnnotation]); !ok || number != 5 {
				t.Errorf("the body has the write %d, %v", number, ok)
			}
			if op.verb != verbPatch && (object.Name != "n" || object.Namespace != "loadtest" || object.Labels[runLabel] != "r1" || len(object.Subsets[0].Addresses) != 3) {
				t.Errorf("the object is %+v", object)
			}
		})
	}
}

// A write changes the addresses, and so does the next one.
func TestBodies(t *testing.T) {
	for _, count := range []int{0, 1, 300, 70000} {
		b := newBodies(&Config{Namespace: "ns", Addresses: count}, "r1")
		ips := map[string]bool{}
		for write := range uint64(2) {
			var object corev1.Endpoints
			if err := json.Unmarshal(b.json(&operation{name: "n", write: write}), &object); err != nil {
				t.Fatal(err)
			}
			if count == 0 {
				continue
			}
			all := object.Subsets[0].Addresses
			ips[all[0].IP] = true
			unique := map[string]bool{}
			for _, address := range all {
				unique[address.IP] = true
			}
			if len(unique) != count {
				t.Errorf("of %d addresses, %d differ", count, len(unique))
			}
		}
		if count > 0 && len(ips) != 2 {
			t.Errorf("the first address is one of %v, want two in turn", ips)
		}
	}
}

func TestForeignNames(t *testing.T) {
	w := testWorkload(t, "get=1")
	for _, name := range []string{"", "web", "lt-other-1", "lt-r1-", "lt-r1-p1", "lt-r1--1"} {
		if number, ok := w.createdNumber(name); ok {
			t.Errorf("%q has the number %d", name, number)
		}
	}
	for _, annotation := range []string{"", "5", "other.5", "r1.", "r1.x"} {
		if number, ok := w.writeNumber(annotation); ok {
			t.Errorf("%q has the number %d", annotation, number)
		}
	}
}
