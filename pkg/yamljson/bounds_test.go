package yamljson_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/berth-project/berth/pkg/yamljson"
)

func TestIsDeeper(t *testing.T) {
	for json, want := range map[string]bool{
		`{"a":[1]}`:         false,
		`{"a":[{}]}`:        true,
		`[[],[],[[]]]`:      true,
		`{"[[[":["\"[[{"]}`: false,
		`"`:                 false,
	} {
		if got := yamljson.IsDeeper([]byte(json), 2); got != want {
			t.Errorf("%s: got %v", json, got)
		}
	}
}

func TestLongestList(t *testing.T) {
	for json, want := range map[string]int{
		`{"a":1,"b":2,"c":[1]}`:            1,
		`[[1,2],[1,2,3,[]],{"a":[1,"]"]}]`: 4,
		`["a,b\",c",{"a":1,"b":1}]`:        2,
		`]]],,`:                            0,
		`"`:                                0,
	} {
		if got := yamljson.LongestList([]byte(json)); got != want {
			t.Errorf("%s: got %d, want %d", json, got, want)
		}
	}
}

// An ordinary object of 20,000 addresses is within the bound in every form.
func TestElementsOfLargeObject(t *testing.T) {
	var asJSON, asYAML strings.Builder
	asJSON.WriteString(`{"subsets":[{"addresses":[`)
	asYAML.WriteString("subsets:\n- addresses:\n")
	for i := range 20_000 {
		if i > 0 {
			asJSON.WriteString(",")
		}
		fmt.Fprintf(&asJSON, `{"ip":"fd00::%x","nodeName":"n-%d","targetRef":{"kind":"Pod","namespace":"default","name":"p-%[1]d","uid":"ae417968-4f69-40da-9228-%012[1]d"}}`, i, i%100)
		fmt.Fprintf(&asYAML, "  - ip: fd00::%x\n    nodeName: n-%d\n    targetRef:\n      kind: Pod\n      name: p-%[1]d\n      namespace: default\n      uid: ae417968-4f69-40da-9228-%012[1]d\n", i, i%100)
	}
	asJSON.WriteString(`]}]}`)
	for name, got := range map[string]int{
		"JSON":         yamljson.Elements([]byte(asJSON.String())),
		"JSON as YAML": yamljson.ElementsOfYAML([]byte(asJSON.String())),
		"YAML":         yamljson.ElementsOfYAML([]byte(asYAML.String())),
	} {
		if got < 300_000 || got > yamljson.MaxElements {
			t.Errorf("%s: %d elements", name, got)
		}
	}
}

// Nothing is decoded to much more than is counted, and text of ordinary kinds does not count.
func FuzzElements(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,{},[]],"b":"\",:"}`, "a: b\nc:\n- d\n- - e\n", "? a\n? b\n", "[a, [b], {c: d, e}, : , ? f]", "{\"a\":1,'b':2}", "- \n-\n-", "a:\u0085- b", "a: |\n  - text: 1\n", "&a [*a, &b , !!str ]", "{a:, b:[:,:]}", "a: 10:20:30 # - x: y\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inYAML := yamljson.ElementsOfYAML(data)
		if json.Valid(data) {
			exact, counted := elements(t, data), yamljson.Elements(data)
			if exact > counted || counted > 2*exact || counted > inYAML {
				t.Errorf("%q has %d elements, counted %d, as YAML %d", data, exact, counted, inYAML)
			}
		}
		var document yaml.Node
		if yaml.Unmarshal(data, &document) == nil {
			if exact := nodes(&document); exact > 2*inYAML {
				t.Errorf("%q has %d nodes, counted %d", data, exact, inYAML)
			}
		}
	})
}

// elements counts the names and values of JSON.
func elements(t *testing.T, data []byte) int {
	t.Helper()
	count := 0
	for decoder := json.NewDecoder(bytes.NewReader(data)); ; {
		token, err := decoder.Token()
		if err != nil {
			return count
		}
		if token != json.Delim('}') && token != json.Delim(']') {
			count++
		}
	}
}

// nodes counts the nodes of a document without the document itself.
func nodes(n *yaml.Node) int {
	count := 0
	for _, child := range n.Content {
		count += 1 + nodes(child)
	}
	return count
}
