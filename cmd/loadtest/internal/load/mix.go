package load

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// verb is what a request asks for, in Kubernetes' words except for apply, which is a patch.
type verb uint8

const (
	verbCreate verb = iota
	verbGet
	verbUpdate
	verbPatch
	verbApply
	verbList
	verbDelete
	verbCount
)

// Verbs are the names of all verbs.
var Verbs = []string{"create", "get", "update", "patch", "apply", "list", "delete"}

func (v verb) String() string { return Verbs[v] }

// writes reports whether a success changes an object, so that watchers get an event.
func (v verb) writes() bool { return v != verbGet && v != verbList }

// maxWeight keeps the sum of all weights far from an overflow.
const maxWeight = 1_000_000

// Mix is how often each verb is sent, in relation to the sum of all. It is a pflag.Value.
type Mix [verbCount]int

// DefaultMix is mostly reads.
var DefaultMix = Mix{verbCreate: 10, verbGet: 60, verbUpdate: 20, verbPatch: 5, verbApply: 2, verbList: 1, verbDelete: 2}

// Set parses "create=10,get=60". Verbs that are not named are not sent.
func (m *Mix) Set(text string) error {
	var parsed Mix
	var given [verbCount]bool
	for part := range strings.SplitSeq(text, ",") {
		name, weight, found := strings.Cut(strings.TrimSpace(part), "=")
		if !found {
			return fmt.Errorf("%q is not of the form verb=weight", part)
		}
		v, err := parseVerb(name)
		if err != nil {
			return err
		}
		if given[v] {
			return fmt.Errorf("%s is named twice", v)
		}
		given[v] = true
		n, err := strconv.Atoi(weight)
		if err != nil || n < 0 || n > maxWeight {
			return fmt.Errorf("the weight of %s is %q, not a whole number from 0 to %d", v, weight, maxWeight)
		}
		parsed[v] = n
	}
	if parsed.total() == 0 {
		return errors.New("no verb has a weight above 0")
	}
	*m = parsed
	return nil
}

func parseVerb(name string) (verb, error) {
	for v, known := range Verbs {
		if name == known {
			return verb(v), nil
		}
	}
	return 0, fmt.Errorf("%q is not one of the verbs %s", name, strings.Join(Verbs, ", "))
}

// String returns what Set parses.
func (m *Mix) String() string {
	var parts []string
	for v, weight := range m {
		if weight > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", verb(v), weight))
		}
	}
	return strings.Join(parts, ",")
}

// Type returns the kind of value that --help shows.
func (m *Mix) Type() string { return "weights" }

// Weight returns the weight of one of Verbs.
func (m *Mix) Weight(verb string) int { return m[slices.Index(Verbs, verb)] }

func (m *Mix) total() int {
	sum := 0
	for _, weight := range m {
		sum += weight
	}
	return sum
}

// pick returns the verb whose share n falls into. n is at least 0 and below the total.
func (m *Mix) pick(n int) verb {
	v := verb(0)
	for n >= m[v] {
		n -= m[v]
		v++
	}
	return v
}
