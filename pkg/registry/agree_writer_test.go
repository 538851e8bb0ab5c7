package registry_test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// writer writes random patches, of few values, so that two often agree.
type writer struct {
	*rand.Rand
	odd bool // also what only libraries deal with, and what is no patch at all
}

func (w writer) options() *metav1.PatchOptions {
	opts := as(fmt.Sprint("m", w.IntN(3)), w.one(2))
	if w.one(20) {
		opts.FieldManager = []string{"", "kubectl"}[w.IntN(2)]
	}
	opts.FieldValidation = []string{"", metav1.FieldValidationIgnore, metav1.FieldValidationWarn, metav1.FieldValidationStrict}[w.IntN(4)]
	return opts
}

func (w writer) one(n int) bool { return w.IntN(n) == 0 }

// oddly returns one of the texts once in a while, and else text.
func (w writer) oddly(text string, texts ...string) string {
	if w.odd && w.one(12) {
		return texts[w.IntN(len(texts))]
	}
	return text
}

// object joins members, some of them twice where that is odd.
func (w writer) object(members []string) string {
	w.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	if len(members) > 0 && w.oddly("", "x") != "" && w.one(3) {
		members = append(members, members[0])
	}
	comma, space := ",", ""
	if w.one(8) {
		comma, space = " ,\n\t", " "
	}
	return "{" + space + strings.Join(members, comma) + space + "}"
}

// texts are labels or annotations. Those that are nulled are taken out by a merge.
func (w writer) texts(prefix string, nulls bool) string {
	var members []string
	for i := range 3 {
		if w.one(2) {
			value := fmt.Sprintf("%q", fmt.Sprint(w.IntN(2)))
			if w.one(6) {
				value = `""`
			}
			if nulls && w.one(4) {
				value = "null"
			}
			members = append(members, fmt.Sprintf("%q:%s", fmt.Sprint(prefix, i), w.oddly(value, "null", "1", "{}", `"\u0041\""`)))
		}
	}
	if len(members) == 0 && !w.odd {
		members = append(members, fmt.Sprintf(`"%s0":"0"`, prefix))
	}
	return w.oddly(w.object(members), "null", "[]", `""`, `{"$patch":"replace"}`, `{"kubectl.kubernetes.io/last-applied-configuration":"{}"}`, `{"é":"x"}`, `{"a b":"\n"}`)
}

func (w writer) list(elements ...string) string {
	w.Shuffle(len(elements), func(i, j int) { elements[i], elements[j] = elements[j], elements[i] })
	if w.one(3) {
		elements = elements[:1+w.IntN(len(elements))]
	}
	if w.odd && w.one(6) {
		elements = append(elements, elements[0])
	}
	return w.oddly("["+strings.Join(elements, ",")+"]", "null", "[]", "[null]", `"x"`)
}

func (w writer) owner(i int) string {
	members := []string{fmt.Sprintf(`"uid":"u%d"`, i), `"apiVersion":"v1"`, `"kind":"Service"`, fmt.Sprintf(`"name":"s%d"`, w.IntN(2))}
	if w.one(2) {
		members = append(members, w.oddly(fmt.Sprintf(`"controller":%v`, w.one(2)), `"controller":null`, `"x":1`))
	}
	if w.odd && w.one(6) {
		members = members[1:]
	}
	return w.object(members)
}

// subset is one of two. Empty lists in it are for applies alone: to the library, an update
// changes such a list that was not there before, and to ours it changes nothing.
func (w writer) subset(i int, apply bool) string {
	address := []string{fmt.Sprintf(`"ip":"10.0.%d.%d"`, i, w.IntN(2))}
	if w.one(3) {
		address = append(address, w.oddly(`"nodeName":"n"`, `"nodeName":""`, `"nodeName":null`, `"hostname":""`))
	}
	if w.one(3) {
		address = append(address, w.oddly(`"targetRef":{"kind":"Pod","name":"p"}`, `"targetRef":{}`, `"targetRef":null`))
	}
	port := []string{w.oddly(`"port":80`, `"port":0`, `"port":80.0`, `"port":8e1`, `"port":"80"`, `"port":99999999999`)}
	if w.one(2) {
		port = append(port, w.oddly(`"protocol":"TCP"`, `"protocol":""`, `"protocol":null`))
	}
	ports := w.oddly(`"ports":[`+w.object(port)+`]`, `"ports":null`)
	if apply {
		ports = w.oddly(ports, `"ports":[]`, `"notReadyAddresses":[]`)
	}
	return w.object([]string{`"addresses":[` + w.object(address) + `]`, ports})
}

func (w writer) metadata(apply bool) string {
	var members []string
	if apply || w.one(5) {
		if name := w.oddly(`"name":"e"`, ``, `"name":""`, `"name":null`, `"name":"f"`, `"name":1`); name != "" {
			members = append(members, name)
		}
	}
	if w.one(2) {
		members = append(members, `"labels":`+w.texts("l", !apply))
	}
	if w.one(3) {
		members = append(members, `"annotations":`+w.texts("example.com/a", !apply))
	}
	if w.one(4) {
		members = append(members, `"finalizers":`+w.list(`"example.com/f0"`, `"example.com/f1"`, `"example.com/f2"`))
	}
	if w.one(4) {
		members = append(members, `"ownerReferences":`+w.list(w.owner(0), w.owner(1), w.owner(2)))
	}
	if w.one(8) {
		members = append(members, w.oddly(fmt.Sprintf(`"generateName":"g%d"`, w.IntN(2)), `"generateName":""`, `"generateName":null`))
	}
	if w.one(8) {
		members = append(members, w.oddly(`"namespace":"default"`, `"namespace":"other"`, `"namespace":null`))
	}
	if w.one(12) {
		members = append(members, []string{`"uid":"u"`, `"resourceVersion":"5"`, `"resourceVersion":"4"`, `"uid":"v"`}[w.IntN(4)])
	}
	if extra := w.oddly("", `"creationTimestamp":null`, `"generation":0`, `"generation":2`, `"managedFields":[]`, `"managedFields":null`, `"managedFields":[{}]`, `"managedFields":[{"manager":"x"}]`,
		`"creationTimestamp":"2001-01-01T00:00:00Z"`, `"selfLink":"/x"`, `"deletionTimestamp":"2001-01-01T00:00:00Z"`, `"deletionGracePeriodSeconds":0`, `"x":1`, `"Labels":{"l0":"1"}`); extra != "" {
		members = append(members, extra)
	}
	return w.oddly(w.object(members), "null", "{}", "[]")
}

// patch returns a patch and its type; the type "" stands for a whole object to update by.
func (w writer) patch(exists bool) (types.PatchType, []byte) {
	kind := types.ApplyYAMLPatchType
	if exists && w.one(2) {
		kind = []types.PatchType{types.MergePatchType, types.StrategicMergePatchType, types.JSONPatchType, ""}[w.IntN(4)]
	}
	if kind == types.JSONPatchType {
		return kind, []byte(w.operations())
	}
	apply := kind == types.ApplyYAMLPatchType
	var members []string
	if kind == "" || apply || w.one(6) {
		members = append(members, w.oddly(`"kind":"Endpoints"`, `"kind":"Service"`, `"kind":null`), w.oddly(`"apiVersion":"v1"`, `"apiVersion":"v2"`, `"apiVersion":""`))
	}
	if apply || w.one(2) || w.one(2) {
		members = append(members, `"metadata":`+w.metadata(apply || kind == ""))
	}
	if w.one(2) {
		members = append(members, `"subsets":`+w.list(w.subset(0, apply), w.subset(1, apply)))
	}
	if extra := w.oddly("", `"x":1`, `"$patch":"replace"`, `"$patch":"delete"`, `"$setElementOrder/subsets":[]`); extra != "" && kind != "" {
		members = append(members, extra)
	}
	text := w.object(members)
	if kind != "" {
		text = w.oddly(text, "{", "null", "[]", text+"x", "", "apiVersion: v1\nkind: Endpoints\nmetadata: {name: e, labels: {l0: \"1\"}}\n")
	}
	return kind, []byte(text)
}

func (w writer) operations() string {
	var operations []string
	for range 1 + w.IntN(2) {
		path := w.oddly([]string{"/metadata/labels/l0", "/metadata/labels", "/metadata/annotations", "/metadata/finalizers", "/metadata/finalizers/-", "/subsets"}[w.IntN(6)],
			"/metadata", "", "/kind", "/metadata/name", "/x", "/metadata/labels/~1x", "/subsets/0/addresses/0/ip")
		value := map[bool]string{true: `"1"`, false: "{}"}[strings.HasSuffix(path, "l0")]
		switch {
		case strings.HasSuffix(path, "labels"):
			value = w.texts("l", false)
		case strings.HasSuffix(path, "finalizers/-"):
			value = `"example.com/f1"`
		case strings.HasSuffix(path, "finalizers"):
			value = w.list(`"example.com/f0"`, `"example.com/f1"`)
		case strings.HasSuffix(path, "subsets"):
			value = w.list(w.subset(0, false), w.subset(1, false))
		}
		operation := w.oddly([]string{"add", "add", "replace", "remove"}[w.IntN(4)], "test", "move", "copy", "x")
		from := w.oddly("", `,"from":"/metadata/labels"`, `,"from":"/subsets"`, `,"From":"/x"`)
		operations = append(operations, fmt.Sprintf(`{"op":%q,"path":%q,"value":%s%s}`, operation, path, value, from))
	}
	return "[" + strings.Join(operations, ",") + "]"
}
