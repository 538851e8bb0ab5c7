package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// verb is what a request asks for, in Kubernetes' words but for apply, which is a patch.
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

var verbNames = [verbCount]string{"create", "get", "update", "patch", "apply", "list", "delete"}

func (v verb) String() string { return verbNames[v] }

// writes reports whether a success changes an object, so that watchers hear of it.
func (v verb) writes() bool { return v != verbGet && v != verbList }

// maxWeight keeps the sum of all weights far from an overflow.
const maxWeight = 1_000_000

// mix is how often each verb is sent, in relation to the sum of all. It is a pflag.Value.
type mix [verbCount]int

// Set reads "create=10,get=60". Verbs that are not named are not sent.
func (m *mix) Set(text string) error {
	var parsed mix
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
		return errors.New("no verb has a weight of more than 0")
	}
	*m = parsed
	return nil
}

func parseVerb(name string) (verb, error) {
	for v, known := range verbNames {
		if name == known {
			return verb(v), nil
		}
	}
	return 0, fmt.Errorf("%q is none of the verbs %s", name, strings.Join(verbNames[:], ", "))
}

// String is what Set reads.
func (m *mix) String() string {
	var parts []string
	for v, weight := range m {
		if weight > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", verb(v), weight))
		}
	}
	return strings.Join(parts, ",")
}

// Type is the kind of value that --help shows.
func (m *mix) Type() string { return "weights" }

func (m *mix) total() int {
	sum := 0
	for _, weight := range m {
		sum += weight
	}
	return sum
}

// pick returns the verb whose share n falls into. n is at least 0 and less than the total.
func (m *mix) pick(n int) verb {
	v := verb(0)
	for n >= m[v] {
		n -= m[v]
		v++
	}
	return v
}
