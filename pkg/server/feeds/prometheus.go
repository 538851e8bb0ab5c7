// Package feeds makes of objects what programs read that speak no Kubernetes: today the targets of
// Prometheus' HTTP service discovery.
package feeds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// Query is what a request asks of the feed.
type Query struct {
	// List are the options of the list that the feed is made of.
	List metav1.ListOptions
	// ports are the names of the ports that are wanted, as they are in templates; nil: all are.
	ports map[string]bool
}

// The parameters of the feed. Those of all calls are pretty, which is for errors alone, and timeout.
const (
	namespaceParameter     = "namespace"
	labelSelectorParameter = "labelSelector"
	fieldSelectorParameter = "fieldSelector"
	portParameter          = "port"
)

var parameters = []string{namespaceParameter, labelSelectorParameter, fieldSelectorParameter, portParameter, "timeout", "pretty"}

// ParseQuery reads the query of a request, of which the namespace is known already. Its error is
// for the client. It refuses what it does not know: with a selector that is spelt wrong the feed
// would have targets that nobody wants.
func ParseQuery(raw string) (*Query, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fmt.Errorf("the query cannot be parsed: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case !slices.Contains(parameters, name):
			return nil, fmt.Errorf("unknown parameter %.100q: there are %s", name, strings.Join(parameters, ", "))
		case name != portParameter && len(query[name]) > 1:
			return nil, fmt.Errorf("the parameter %s may be given once", name)
		}
	}
	if namespace := query.Get(namespaceParameter); namespace != "" {
		if faults := validation.IsDNS1123Label(namespace); len(faults) > 0 {
			return nil, fmt.Errorf("invalid namespace: %s", strings.Join(faults, ", "))
		}
	}
	q := &Query{List: metav1.ListOptions{LabelSelector: query.Get(labelSelectorParameter), FieldSelector: query.Get(fieldSelectorParameter)}}
	if names := query[portParameter]; len(names) > 0 {
		q.ports = make(map[string]bool, len(names))
		for _, name := range names {
			q.ports[string(appendText(nil, name))] = true
		}
	}
	return q, nil
}

// wants reports whether the query asks for a port.
func (q *Query) wants(p *port) bool { return q.ports == nil || q.ports[string(p.name)] }

// form is changed with what is written of an object, so that no client takes what it has for it.
const form = 1

// ETag returns the entity tag of the feed of the objects. It is a weak one, since the answer may be
// compressed, and changes with each version of each of the objects: no two have the same key and
// revision, except in an etcd that has lost its data, and hardly then in the same second.
func (q *Query) ETag(objects []*object.Object) string {
	hash := sha256.New()
	line := binary.AppendUvarint(nil, form)
	for _, port := range slices.Sorted(maps.Keys(q.ports)) {
		line = append(append(line, port...), endField)
	}
	line = append(line, endItem)
	if q.ports == nil {
		line = append(line, endSection)
	}
	for _, o := range objects {
		line = append(append(line, o.Key...), endField)
		line = binary.BigEndian.AppendUint64(line, uint64(o.Revision))
		line = binary.BigEndian.AppendUint64(line, uint64(o.Created().Unix()))
		_, _ = hash.Write(line) // it takes everything
		line = line[:0]
	}
	_, _ = hash.Write(line)
	return `W/"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:18]) + `"`
}

// What stands around and between the parts of a group and of the feed.
const (
	openFeed, nextGroup, closeFeed, emptyFeed = "[\n", ",\n", "\n]\n", "[]\n"

	openGroup, openLabels, closeGroup     = `{"targets":[`, `],"labels":{`, "}}"
	openTarget, betweenTargets, endTarget = `"`, `,`, `"`
)

// maxObjectBytes is what the feed may have of one object, in bytes: its ports times its addresses
// may be any number.
const maxObjectBytes = 64 << 20

// Feed is the targets of objects in the form of Prometheus' HTTP service discovery, put together
// only while they are written.
type Feed struct {
	query   *Query
	objects []*object.Object // that have targets
	size    int
	// Omitted says which objects are left out, and why.
	Omitted []string
}

// Feed returns the feed of the objects, or ctx's error where making their templates takes longer
// than ctx lasts.
func (q *Query) Feed(ctx context.Context, objects []*object.Object) (*Feed, error) {
	f := &Feed{query: q, size: len(emptyFeed)}
	groups, total := 0, 0
	for _, o := range objects {
		t, err := o.Derived(object.Targets, template)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := q.measure(t)
		switch {
		case n.groups == 0:
		case n.bytes > maxObjectBytes:
			f.Omitted = append(f.Omitted, fmt.Sprintf("the endpoints %s/%s are left out: their %d targets take %d bytes, of which one object may have %d; ask for one port", o.Namespace, o.Name, n.targets, n.bytes, maxObjectBytes))
		default:
			f.objects = append(f.objects, o)
			groups, total = groups+n.groups, total+n.bytes
		}
	}
	if groups > 0 {
		f.size = len(openFeed) + total + (groups-1)*len(nextGroup) + len(closeFeed)
	}
	return f, nil
}

// Size is how many bytes Write writes.
func (f *Feed) Size() int { return f.size }

// measured is what is written of a template, without what stands between groups.
type measured struct{ groups, targets, bytes int }

// measure measures a template in the time that reading it takes.
func (q *Query) measure(t []byte) (all measured) {
	objectLabels, sections := cut(t, endSection)
	around := len(openGroup) + len(openLabels) + len(objectLabels) + len(closeGroup)
	for section := range parts(sections, endSection) {
		portItems, runs := cut(section, endPorts)
		var ports, numbers, portLabels int
		for item := range parts(portItems, endItem) {
			if p := readPort(item); q.wants(&p) {
				ports, numbers, portLabels = ports+1, numbers+len(p.number), portLabels+len(p.labels)
			}
		}
		if ports == 0 {
			continue
		}
		var groups, hosts, hostBytes, runLabels int
		for run := range parts(runs, endItem) {
			labels, list := cut(run, endField)
			n := bytes.Count(list, []byte{endField})
			groups, hosts, hostBytes, runLabels = groups+1, hosts+n, hostBytes+len(list)-n, runLabels+len(labels)
		}
		all.groups += ports * groups
		all.targets += ports * hosts
		all.bytes += ports*(groups*around+runLabels+hostBytes) + groups*portLabels + hosts*numbers +
			ports*(hosts*len(openTarget+":"+endTarget)+(hosts-groups)*len(betweenTargets))
	}
	return all
}

// flushBytes is about how much is put together before it is written, in bytes.
const flushBytes = 32 << 10

// writer puts the feed together.
type writer struct {
	ctx   context.Context
	to    *stream.Writer
	bytes []byte
	begun bool // whether there is a group
}

// Write writes the feed, as long as ctx lasts.
func (f *Feed) Write(ctx context.Context, to *stream.Writer) error {
	to.Expect(f.size)
	w := &writer{ctx: ctx, to: to, bytes: make([]byte, 0, 2*flushBytes)}
	for _, o := range f.objects {
		t, err := o.Derived(object.Targets, template)
		if err != nil {
			return err
		}
		if err := w.object(f.query, t); err != nil {
			return err
		}
	}
	end := closeFeed
	if !w.begun {
		end = emptyFeed
	}
	w.bytes = append(w.bytes, end...)
	return w.flush()
}

func (w *writer) object(q *Query, t []byte) error {
	objectLabels, sections := cut(t, endSection)
	for section := range parts(sections, endSection) {
		portItems, runs := cut(section, endPorts)
		for item := range parts(portItems, endItem) {
			p := readPort(item)
			if !q.wants(&p) {
				continue
			}
			for run := range parts(runs, endItem) {
				if err := w.group(objectLabels, &p, run); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// group writes the targets of a port at the addresses that have the same labels.
func (w *writer) group(objectLabels []byte, p *port, run []byte) error {
	labels, hosts := cut(run, endField)
	if w.begun {
		w.bytes = append(w.bytes, nextGroup...)
	} else {
		w.bytes, w.begun = append(w.bytes, openFeed...), true
	}
	w.bytes = append(w.bytes, openGroup...)
	between := ""
	for host := range parts(hosts, endField) {
		w.bytes = append(append(append(w.bytes, between...), openTarget...), host...)
		w.bytes = append(append(append(w.bytes, ':'), p.number...), endTarget...)
		if between = betweenTargets; len(w.bytes) > flushBytes {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	w.bytes = append(append(w.bytes, openLabels...), objectLabels...)
	w.bytes = append(append(append(w.bytes, p.labels...), labels...), closeGroup...)
	if len(w.bytes) > flushBytes {
		return w.flush()
	}
	return nil
}

func (w *writer) flush() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	_, err := w.to.Write(w.bytes)
	w.bytes = w.bytes[:0]
	return err
}
