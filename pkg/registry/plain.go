package registry

import (
	"bytes"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// plain decodes a patch that is an object of the resource's type and holds nothing that a
// Go object loses: neither null nor empty values, except in labels and annotations. ok is
// false for every other patch, and for one that sets what only the server may set.
func (p *patcher) plain() (config runtime.Object, ok bool) {
	if p.store.Atomic == nil || p.store.DecodePlainJSON == nil {
		return nil, false
	}
	empty, ok := scanPlain(p.patch)
	if !ok {
		return nil, false
	}
	config = p.store.New()
	if !p.store.DecodePlainJSON(p.patch, config) {
		return nil, false
	}
	meta := objectMeta(config)
	for _, values := range []map[string]string{meta.Labels, meta.Annotations} {
		for _, value := range values {
			if value == "" {
				empty--
			}
		}
	}
	return config, empty == 0 && meta.ManagedFields == nil && meta.SelfLink == "" && meta.Generation == 0 &&
		meta.CreationTimestamp == (metav1.Time{}) && meta.DeletionTimestamp == nil && meta.DeletionGracePeriodSeconds == nil
}

// applyPlain applies a plain configuration; ok is false for what is left to the library.
func (p *patcher) applyPlain(live runtime.Object) (applied runtime.Object, ok bool) {
	config, ok := p.plain()
	if !ok || p.sameKind(config) != nil {
		return nil, false
	}
	return p.store.owners.apply(live, config, p.opts.FieldManager, p.force())
}

// mergePlain merges a plain patch into the object: what it says counts, lists as a whole. To
// a strategic patch the lists in the metadata and names that begin with $ mean more; ok is
// false for those, as for every other patch and for an object whose JSON holds more than
// current does.
func (p *patcher) mergePlain(stored *object, current runtime.Object) (next runtime.Object, ok bool) {
	if p.patchType != types.MergePatchType && p.patchType != types.StrategicMergePatchType {
		return nil, false
	}
	config, ok := p.plain()
	if !ok || !p.store.holds(current, stored) {
		return nil, false
	}
	if kind := config.GetObjectKind().GroupVersionKind(); !kind.Empty() && p.sameKind(config) != nil {
		return nil, false
	}
	given := objectMeta(config)
	if p.patchType == types.StrategicMergePatchType && (given.Finalizers != nil || given.OwnerReferences != nil || directs(given.Labels) || directs(given.Annotations)) {
		return nil, false
	}
	next = p.store.owners.overlay(current, config)
	meta := objectMeta(next)
	if given.Finalizers != nil {
		meta.Finalizers = given.Finalizers
	}
	if given.OwnerReferences != nil {
		meta.OwnerReferences = given.OwnerReferences
	}
	return next, true
}

// directs says whether a map holds a directive of strategic merge patches.
func directs(values map[string]string) bool {
	for key := range values {
		if strings.HasPrefix(key, "$") {
			return true
		}
	}
	return false
}

// patchMetadata patches an object without making JSON of its atomic fields, where the
// patch has nothing to do with them. ok is false for every other patch and for one that
// fails, whose error may show the object.
func (p *patcher) patchMetadata(doc *document, stored *object, current runtime.Object) (next runtime.Object, ok bool) {
	if p.store.Atomic == nil || !doc.metadataOnly || len(doc.faults) > 0 || !p.store.holds(current, stored) {
		return nil, false
	}
	bare := p.store.New()
	bare.GetObjectKind().SetGroupVersionKind(p.store.GroupVersionKind())
	*objectMeta(bare) = *objectMeta(current)
	before, err := p.store.encode(bare)
	if err != nil {
		return nil, false
	}
	patched, err := doc.apply(before)
	if err != nil {
		return nil, false
	}
	next, faults, err := p.store.decodeStrict(patched)
	if err != nil || len(faults) > 0 || p.sameKind(next) != nil {
		return nil, false
	}
	for _, atomic := range p.store.Atomic {
		atomic.Copy(next, current)
	}
	return next, true
}

// holds says whether an object holds all that its JSON does, which another program may have
// written.
func (r *Resource) holds(obj runtime.Object, stored *object) bool {
	data, err := r.encode(obj)
	return err == nil && bytes.Equal(data, stored.json)
}

// scanPlain counts the empty strings in a JSON object. ok is false where there is a null, an
// empty list or object, or a number that begins with 0. What it says of data that is no
// JSON does not matter.
func scanPlain(data []byte) (empty int, ok bool) {
	if len(data) == 0 || data[0] != '{' {
		return 0, false
	}
	last := byte(0) // the latest byte that is neither space nor within a string
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		case '"':
			end := stringEnd(data[i:])
			if end < 0 {
				return 0, false
			}
			if end == 1 {
				empty++
			}
			i += end
		case 'n':
			return 0, false
		case '0':
			if last == ':' || last == '[' || last == ',' || last == '-' {
				return 0, false
			}
		case '}', ']':
			if last == '{' || last == '[' {
				return 0, false
			}
		}
		last = c
	}
	return empty, true
}

// stringEnd returns where the string ends that data begins with, or -1.
func stringEnd(data []byte) int {
	for at := 1; ; {
		quote := bytes.IndexByte(data[at:], '"')
		if quote < 0 {
			return -1
		}
		at += quote
		backslashes := 0
		for data[at-1-backslashes] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			return at
		}
		at++
	}
}
