package media

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// Whatever JSON says, its YAML says as well, in the form that kube-apiserver gives it.
func TestJSONToYAML(t *testing.T) {
	for name, tc := range map[string]struct {
		json  string
		alike bool // sigs.k8s.io/yaml makes the same of it
	}{
		"an object":         {`{"kind":"Endpoints","a":{"b":[1,-2,1.5,1e3,12345678901,null,true,""],"c":{},"d":[]}}`, true},
		"texts":             {`{"a":["1","1e3","yes","~","<<","a: b","#","@","x\ny\n","\t"," ","2001-01-01","0x1F","1:20"]}`, true},
		"escapes":           {`{"a":"\u0000\u001b\u2028\u003c\"\\"}`, true},
		"a long text":       {`{"a":"` + strings.Repeat("x y ", 1000) + `"}`, true},
		"emoji":             {`{"😀":"😀"}`, true},
		"U+007F":            {"{\"a\x7f\":\"\x7f\"}", false},
		"C1 controls":       {`{"a":"` + "\u0080\u009f" + `"}`, false},
		"no characters":     {`{"a":"` + "\ufffe\uffff" + `"}`, false},
		"U+0085":            {`{"a":"b` + "\u0085" + `c"}`, false},
		"line separators":   {`{"a":"b` + "\u2028c\u2029" + `d"}`, true},
		"an escaped slash":  {`{"a":"\/"}`, false},
		"surrogate escapes": {`{"a":"\ud83d\ude00"}`, false},
		"a long name":       {`{"` + strings.Repeat("x", 2000) + `":{"a":1}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := jsonToYAML([]byte(tc.json))
			if err != nil {
				t.Fatal(err)
			}
			want, err := yaml.JSONToYAML([]byte(tc.json))
			if same := err == nil && string(want) == string(got); same != tc.alike {
				t.Errorf("got\n%s, and from sigs.k8s.io/yaml %v\n%s", got, err, want)
			}
			again, err := yaml.YAMLToJSONStrict(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decoded(t, []byte(tc.json)), decoded(t, again)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func decoded(t *testing.T, data []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
