package load

import (
	"fmt"
	"strconv"
	"strings"
)

// bodies makes the bodies of writes. The long part of an object is built once.
type bodies struct {
	run     string
	head    string    // between name and annotation
	subsets [2]string // two sets of addresses, used in turn so that each write changes them
}

func newBodies(run, namespace string, addresses int) bodies {
	b := bodies{
		run:  run,
		head: fmt.Sprintf(`","namespace":%q,"labels":{%q:%q},"annotations":{%q:"%s.`, namespace, runLabel, run, writeAnnotation, run),
	}
	for variant := range b.subsets {
		b.subsets[variant] = `"}},"subsets":` + subsets(namespace, addresses, variant) + `}`
	}
	return b
}

// subsets returns a list of one subset with all addresses, or an empty one without any.
func subsets(namespace string, addresses, variant int) string {
	if addresses == 0 {
		return "[]"
	}
	var s strings.Builder
	s.WriteString(`[{"addresses":[`)
	for i := range addresses {
		if i > 0 {
			s.WriteByte(',')
		}
		// Only the first one differs, as if one pod of a service had been replaced.
		block := 16 + i/62500
		if i == 0 {
			block -= variant
		}
		fmt.Fprintf(&s, `{"ip":"10.%d.%d.%d","nodeName":"node-%d","targetRef":{"kind":"Pod","namespace":%q,"name":"pod-%d","uid":"00000000-0000-4000-8000-%012d"}}`,
			block, i/250%250, 1+i%250, i%100, namespace, i, i)
	}
	s.WriteString(`],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}]`)
	return s.String()
}

// of returns the body of a write.
func (b *bodies) of(op *operation) []byte {
	number := strconv.FormatUint(op.write, 10)
	if op.verb == verbPatch {
		return fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%s.%s"}}}`, writeAnnotation, b.run, number)
	}
	const start = `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"`
	tail := b.subsets[op.write%2]
	body := make([]byte, 0, len(start)+len(op.name)+len(b.head)+len(number)+len(tail))
	body = append(body, start...)
	body = append(body, op.name...)
	body = append(body, b.head...)
	body = append(body, number...)
	return append(body, tail...)
}
