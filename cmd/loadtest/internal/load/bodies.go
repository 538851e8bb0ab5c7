package load

import (
	"fmt"
	"strconv"
	"strings"
)

// bodies makes the bodies of writes. The long part of an object is built once.
type bodies struct {
	run        string
	namespaces []string
	protobuf   bool
	subsets    [2]string // two sets of addresses, used in turn so that each write changes them
	packed     [2][]byte // the same in protobuf
}

func newBodies(c *Config, run string) bodies {
	b := bodies{run: run, namespaces: namespaceNames(c), protobuf: c.Protobuf}
	for variant := range b.subsets {
		list := subsets(c.Namespace, c.Addresses, variant)
		b.subsets[variant] = `"}},"subsets":` + list + `}`
		if b.protobuf {
			b.packed[variant] = packSubsets(list)
		}
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

// annotation is the value of writeAnnotation.
func (b *bodies) annotation(op *operation) string {
	return b.run + "." + strconv.FormatUint(op.write, 10)
}

// of returns the body of a write and its media type.
func (b *bodies) of(op *operation) (body []byte, contentType string) {
	switch {
	case op.verb == verbPatch:
		return fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, writeAnnotation, b.annotation(op)), "application/merge-patch+json"
	case op.verb == verbApply:
		return b.json(op), "application/apply-patch+yaml"
	case b.protobuf:
		return b.pack(op), protobufType
	}
	return b.json(op), "application/json"
}

// json returns a whole object.
func (b *bodies) json(op *operation) []byte {
	tail := b.subsets[op.write%2]
	body := make([]byte, 0, 300+len(tail))
	body = fmt.Appendf(body, `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":%q,"namespace":%q,"labels":{%q:%q},"annotations":{%q:"%s`,
		op.name, b.namespaces[op.namespace], runLabel, b.run, writeAnnotation, b.annotation(op))
	return append(body, tail...)
}
