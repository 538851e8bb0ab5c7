package feeds

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"

	"github.com/berth-project/berth/pkg/object"
)

// A template is what is kept of an Endpoints: it is about as large as the object, while what is
// written of it, each port with each address, may be any number of times as large. It is a section
// with the labels of all targets, and one for each subset, which has its ports and its addresses,
// those in a row with the same labels together:
//
//	template = labels endSection { subset endSection }
//	subset   = { name endField number endField labels endItem } endPorts { labels endField { host endField } endItem }
//
// Everything between is JSON without quotes around it, in which control characters are escaped.
// Labels are the members of an object, those of ports and addresses with a comma before each.
const (
	endSection = iota
	endPorts
	endItem
	endField
)

// Labels have the names that Prometheus' own discovery gives them, so that the same relabelling
// serves both, except the two that stay without any.
const (
	namespaceLabel = "namespace"
	endpointsLabel = "endpoints"

	metaLabel       = "__meta_kubernetes_"
	objectPrefix    = metaLabel + "endpoints_"
	addressPrefix   = metaLabel + "endpoint_"
	labelPrefix     = objectPrefix + "label_"
	annotatedPrefix = objectPrefix + "annotation_"
)

// maxAnnotation is up to which size an annotation's value becomes a label, in bytes: larger ones
// are documents, such as what kubectl has applied last.
const maxAnnotation = 1 << 10

// template makes the template of an Endpoints.
func template(o *object.Object) ([]byte, error) {
	obj, err := o.Decode()
	if err != nil {
		return nil, err
	}
	endpoints, ok := obj.(*corev1.Endpoints)
	if !ok {
		return nil, fmt.Errorf("a %s has no targets", o.Type.Kind.Kind)
	}
	t := append(appendObjectLabels(nil, endpoints), endSection)
	for i := range endpoints.Subsets {
		t = appendSubset(t, &endpoints.Subsets[i])
	}
	return t, nil
}

func appendObjectLabels(t []byte, e *corev1.Endpoints) []byte {
	t = appendLabel(t, namespaceLabel, e.Namespace)[1:] // there is nothing before it
	t = appendLabel(t, endpointsLabel, e.Name)
	t = appendLabel(t, metaLabel+"namespace", e.Namespace)
	t = appendLabel(t, objectPrefix+"name", e.Name)
	t = appendMap(t, labelPrefix, e.Labels)
	annotations := maps.Clone(e.Annotations)
	maps.DeleteFunc(annotations, func(name, value string) bool {
		return len(value) > maxAnnotation || name == corev1.LastAppliedConfigAnnotation
	})
	return appendMap(t, annotatedPrefix, annotations)
}

// appendMap appends a label for each entry. Of those whose names are the same to Prometheus the
// first one counts, in the order of their names.
func appendMap(t []byte, prefix string, entries map[string]string) []byte {
	known := make(map[string]bool, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if name := labelName(key); !known[name] {
			known[name] = true
			t = appendLabel(t, prefix+name, entries[key])
		}
	}
	return t
}

// labelName returns a part of a label's name, in which Prometheus allows letters, digits and
// underscores of ASCII.
func labelName(key string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, key)
}

func appendLabel(t []byte, name, value string) []byte {
	t = append(append(append(t, `,"`...), name...), `":"`...)
	return append(appendText(t, value), '"')
}

// appendText appends the text as JSON without the quotes.
func appendText(t []byte, text string) []byte {
	quoted, _ := jsontext.AppendQuote(t, text) // what is not UTF-8 is replaced
	start := len(t)
	return append(quoted[:start], quoted[start+1:len(quoted)-1]...)
}

// appendSubset appends the section of a subset, unless it has no targets.
func appendSubset(t []byte, s *corev1.EndpointSubset) []byte {
	if len(s.Ports) == 0 || len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
		return t
	}
	for i := range s.Ports {
		port := &s.Ports[i]
		t = append(appendText(t, port.Name), endField)
		t = append(strconv.AppendInt(t, int64(port.Port), 10), endField)
		t = appendLabel(t, addressPrefix+"port_name", port.Name)
		t = append(appendLabel(t, addressPrefix+"port_protocol", string(port.Protocol)), endItem)
	}
	t = append(t, endPorts)
	var before, labels []byte
	appendAddress := func(a *corev1.EndpointAddress, ready string) {
		labels = appendAddressLabels(labels[:0], a, ready)
		if !bytes.Equal(labels, before) {
			if before != nil {
				t = append(t, endItem)
			}
			t = append(append(t, labels...), endField)
			before = append(before[:0], labels...)
		}
		t = append(appendText(t, host(a.IP)), endField)
	}
	for i := range s.Addresses {
		appendAddress(&s.Addresses[i], "true")
	}
	for i := range s.NotReadyAddresses {
		appendAddress(&s.NotReadyAddresses[i], "false")
	}
	return append(t, endItem, endSection)
}

func appendAddressLabels(t []byte, a *corev1.EndpointAddress, ready string) []byte {
	t = appendLabel(t, addressPrefix+"ready", ready)
	if a.Hostname != "" {
		t = appendLabel(t, addressPrefix+"hostname", a.Hostname)
	}
	if a.NodeName != nil {
		t = appendLabel(t, addressPrefix+"node_name", *a.NodeName)
	}
	if a.TargetRef != nil {
		t = appendLabel(t, addressPrefix+"address_target_kind", a.TargetRef.Kind)
		t = appendLabel(t, addressPrefix+"address_target_name", a.TargetRef.Name)
	}
	return t
}

// host is the address as it stands before a port.
func host(ip string) string { return strings.TrimSuffix(net.JoinHostPort(ip, ""), ":") }

// parts yields the parts of a template, each of which the byte ends.
func parts(t []byte, end byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(t) > 0 {
			part, rest := cut(t, end)
			if !yield(part) {
				return
			}
			t = rest
		}
	}
}

func cut(t []byte, end byte) (before, behind []byte) {
	i := bytes.IndexByte(t, end)
	return t[:i], t[i+1:]
}

// port is a port in a template.
type port struct{ name, number, labels []byte }

func readPort(item []byte) (p port) {
	p.name, item = cut(item, endField)
	p.number, p.labels = cut(item, endField)
	return p
}
