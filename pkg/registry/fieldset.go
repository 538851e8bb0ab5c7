package registry

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fieldSet is a set of fields as managedFields have it, sorted. A field is the path to it:
// names as in the keys of FieldsV1, with a NUL behind each. Names are plain, so that this
// order is structured-merge-diff's: what contains a field comes before it, and of two names
// the one that ends first.
type fieldSet []string

// Fields that every object has. Those that hold others are collections.
const (
	metadataField        = "f:metadata\x00"
	generateNameField    = metadataField + "f:generateName\x00"
	annotationsField     = metadataField + "f:annotations\x00"
	finalizersField      = metadataField + "f:finalizers\x00"
	labelsField          = metadataField + "f:labels\x00"
	ownerReferencesField = metadataField + "f:ownerReferences\x00"
)

var collections = fieldSet{annotationsField, finalizersField, labelsField, ownerReferencesField}

func topField(name string) string            { return "f:" + name + "\x00" }
func keyField(collection, key string) string { return collection + "f:" + key + "\x00" }
func finalizerField(finalizer string) string { return finalizersField + `v:"` + finalizer + "\"\x00" }
func ownerReferenceField(uid string) string {
	return ownerReferencesField + `k:{"uid":"` + uid + "\"}\x00"
}

// plainName says whether a name is written as it is in FieldsV1 and sorts as such. Valid
// labels, annotations and finalizers are plain.
func plainName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '-' <= c && c <= ':', c == '_': // - . / 0-9 :
		default:
			return false
		}
	}
	return name != ""
}

// plainKey says whether a key of FieldsV1 is one of a plain name.
func plainKey(key string) bool {
	for _, form := range [...]struct{ before, after string }{{"f:", ""}, {`v:"`, `"`}, {`k:{"uid":"`, `"}`}} {
		if name, ok := strings.CutPrefix(key, form.before); ok {
			name, ok = strings.CutSuffix(name, form.after)
			return ok && plainName(name)
		}
	}
	return false
}

// parseFieldSet reads FieldsV1 as structured-merge-diff writes it. ok is false for an
// empty set, and for names that are not plain and fields within others than metadata and
// what is in it.
func parseFieldSet(data []byte) (set fieldSet, ok bool) {
	p := fieldSetParser{data: data}
	if !p.object("", 0) || len(p.data) > 0 {
		return nil, false
	}
	for i := 1; i < len(p.set); i++ {
		if p.set[i-1] >= p.set[i] {
			return nil, false
		}
	}
	return p.set, true
}

type fieldSetParser struct {
	data []byte // what is left
	set  fieldSet
}

// object reads the braces of a field and what is between them.
func (p *fieldSetParser) object(field string, depth int) bool {
	if !p.skip("{") {
		return false
	}
	holds := field == "" || field == metadataField
	if p.skip("}") {
		p.set = append(p.set, field)
		return !holds
	}
	if depth == 3 || depth == 1 && !holds {
		return false
	}
	if p.skip(`".":{},`) {
		p.set = append(p.set, field)
		if holds {
			return false
		}
	}
	for {
		key, ok := p.key()
		if !ok || !p.object(field+key+"\x00", depth+1) {
			return false
		}
		if p.skip("}") {
			return true
		}
		if !p.skip(",") {
			return false
		}
	}
}

func (p *fieldSetParser) skip(text string) bool {
	if len(p.data) < len(text) || string(p.data[:len(text)]) != text {
		return false
	}
	p.data = p.data[len(text):]
	return true
}

func (p *fieldSetParser) key() (string, bool) {
	if !p.skip(`"`) {
		return "", false
	}
	for i := 0; i < len(p.data); i++ {
		switch p.data[i] {
		case '\\':
			i++
		case '"':
			key := strings.ReplaceAll(string(p.data[:i]), `\"`, `"`)
			p.data = p.data[i+1:]
			return key, p.skip(":") && plainKey(key)
		}
	}
	return "", false
}

// fieldsV1 writes the set as structured-merge-diff does.
func (s fieldSet) fieldsV1() *metav1.FieldsV1 {
	out := make([]byte, 0, 256)
	out = append(out, '{')
	open := ""
	for i, field := range s {
		for !strings.HasPrefix(field, open) {
			open = open[:strings.LastIndexByte(open[:len(open)-1], 0)+1]
			out = append(out, '}')
		}
		for key := range strings.SplitSeq(field[len(open):len(field)-1], "\x00") {
			if out[len(out)-1] == '}' {
				out = append(out, ',')
			}
			out = append(out, '"')
			out = append(out, strings.ReplaceAll(key, `"`, `\"`)...)
			out = append(out, `":{`...)
		}
		open = field
		if i+1 < len(s) && strings.HasPrefix(s[i+1], field) {
			out = append(out, `".":{}`...)
		}
	}
	for range strings.Count(open, "\x00") {
		out = append(out, '}')
	}
	out = append(out, '}')
	fields := &metav1.FieldsV1{}
	fields.SetRawBytes(out)
	return fields
}

func (s fieldSet) has(field string) bool {
	_, ok := slices.BinarySearch(s, field)
	return ok
}

// hasWithin says whether the set has the collection itself or a field in it.
func (s fieldSet) hasWithin(collection string) bool {
	at, _ := slices.BinarySearch(s, collection)
	return at < len(s) && strings.HasPrefix(s[at], collection)
}

func (s fieldSet) meets(other fieldSet) bool { return slices.ContainsFunc(s, other.has) }

// without returns the fields that are not in other. The set stays as it is, as it does
// below.
func (s fieldSet) without(other fieldSet) fieldSet {
	return slices.DeleteFunc(slices.Clone(s), other.has)
}

// with returns the fields that are in either set.
func (s fieldSet) with(other fieldSet) fieldSet {
	both := slices.Concat(s, other)
	slices.Sort(both)
	return slices.Compact(both)
}
