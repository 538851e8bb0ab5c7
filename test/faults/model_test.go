package faults

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What a client may ask of one object. Every write has a tag of its own, which says what the object is
// after it.
const (
	get     = "get"
	create  = "create"
	replace = "replace" // whatever is there, or nothing
	update  = "update"  // the state that was read
	remove  = "remove"  // whatever is there
	expunge = "expunge" // the state that was read
)

// call is one request about one object.
type call struct {
	verb string
	tag  string // of what a write writes
	read string // the tag of the state that update and expunge are about
}

// result is what became of a call.
type result int

const (
	done     result = iota
	missing         // 404
	conflict        // 409
	unknown         // it may have happened, or may yet
	refused         // it has not happened, and says nothing of the object
)

type outcome struct {
	result
	tag string // that get has read
}

// object is the model of one object: its state is the tag of the last write, empty without an object.
var object = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		ok, next := step(state.(string), in.(call), out.(outcome))
		return ok, next
	},
}

func step(state string, c call, o outcome) (ok bool, next string) {
	exists, asRead := state != "", state == c.read
	// Nobody has seen the outcome of an unknown call: where it has no effect it is in order, too.
	is := func(want result) bool { return o.result == want || o.result == unknown }
	switch {
	case c.verb == get && o.result == missing:
		return !exists, state
	case c.verb == get:
		return state == o.tag, state
	case c.verb == replace:
		return is(done), c.tag
	case c.verb == create && !exists, c.verb == update && asRead && exists:
		return is(done), c.tag
	case c.verb == create, c.verb == update:
		return is(conflict), state
	case c.verb == remove && exists, c.verb == expunge && asRead && exists:
		return is(done), ""
	case !exists:
		// A deletion whose transaction had an unknown outcome is done if the object has gone since,
		// whoever deleted it.
		return is(missing) || o.result == done, ""
	default: // expunge, and it has changed
		return is(conflict), state
	}
}

// linearizable checks the history of one object. Calls with an unknown outcome may take effect at any
// time from their beginning on. Those whose tag nobody has seen, not even etcd, had none.
func linearizable(calls []porcupine.Operation, seen map[string]bool, limit time.Duration) porcupine.CheckResult {
	var relevant []porcupine.Operation
	for _, op := range calls {
		in, out := op.Input.(call), op.Output.(outcome)
		switch {
		case out.result == refused:
			continue
		case out.result == unknown && (in.verb == get || in.tag != "" && !seen[in.tag]):
			continue
		case out.result == unknown:
			op.Return = int64(1) << 62
		}
		relevant = append(relevant, op)
	}
	return porcupine.CheckOperationsTimeout(object, relevant, limit)
}

// The model finds what it is for.
func TestModel(t *testing.T) {
	at := func(from, to int64, in call, out outcome) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: from, Return: to}
	}
	wrote := func(from, to int64, tag string) porcupine.Operation {
		return at(from, to, call{verb: create, tag: tag}, outcome{result: done})
	}
	read := func(from, to int64, tag string) porcupine.Operation {
		if tag == "" {
			return at(from, to, call{verb: get}, outcome{result: missing})
		}
		return at(from, to, call{verb: get}, outcome{done, tag})
	}
	lost := at(2, 3, call{verb: replace, tag: "b"}, outcome{result: unknown})
	gone := at(2, 3, call{verb: expunge, read: "a"}, outcome{result: unknown})
	for name, test := range map[string]struct {
		want  porcupine.CheckResult
		calls []porcupine.Operation
	}{
		"in order":                       {porcupine.Ok, []porcupine.Operation{wrote(0, 1, "a"), read(2, 3, "a")}},
		"a stale read":                   {porcupine.Illegal, []porcupine.Operation{wrote(0, 1, "a"), read(2, 3, "")}},
		"a lost write":                   {porcupine.Illegal, []porcupine.Operation{wrote(0, 1, "a"), wrote(2, 3, "b")}},
		"an unknown write that was made": {porcupine.Ok, []porcupine.Operation{wrote(0, 1, "a"), lost, read(4, 5, "a"), read(6, 7, "b")}},
		"and that went back":             {porcupine.Illegal, []porcupine.Operation{wrote(0, 1, "a"), lost, read(4, 5, "b"), read(6, 7, "a")}},
		"an unknown deletion":            {porcupine.Ok, []porcupine.Operation{wrote(0, 1, "a"), gone, read(4, 5, "a"), read(6, 7, "")}},
		"one that was made twice":        {porcupine.Illegal, []porcupine.Operation{wrote(0, 1, "a"), gone, read(4, 5, ""), wrote(6, 7, "c"), read(8, 9, "")}},
		"a false conflict": {porcupine.Illegal, []porcupine.Operation{
			at(0, 1, call{verb: create, tag: "a"}, outcome{result: conflict}), read(2, 3, "a"),
		}},
		"two updates of one state": {porcupine.Illegal, []porcupine.Operation{
			wrote(0, 1, "a"),
			at(2, 9, call{verb: update, tag: "b", read: "a"}, outcome{result: done}), at(2, 9, call{verb: update, tag: "c", read: "a"}, outcome{result: done}),
		}},
	} {
		if got := linearizable(test.calls, map[string]bool{"b": true}, time.Minute); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
