package harness

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMask(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"what the server fills in",
			`{"uid":"ae417968-4f69-40da-9228-2434671e9c66","creationTimestamp":"2023-03-28T13:55:52Z","resourceVersion":"263538673"}`,
			`{"uid":"<uid>","creationTimestamp":"<time>","resourceVersion":"<rv>"}`},
		{"what is missing stays missing", `{"name":"a"}`, `{"name":"a"}`},
		{"empty values and version 0 say something", `{"uid":"","resourceVersion":"0","continue":""}`, `{"uid":"","resourceVersion":"0","continue":""}`},
		{"a continue token", `{"metadata":{"continue":"eyJ2Ij"}}`, `{"metadata":{"continue":"<continue>"}}`},
		{"a generated name, and its link", `{"generateName":"e-","name":"e-x7zvq","selfLink":"/endpoints/e-x7zvq"}`,
			`{"generateName":"e-","name":"e-<generated>","selfLink":"/endpoints/e-<generated>"}`},
		{"a name of one's own beside generateName", `{"generateName":"e-","name":"mine"}`, `{"generateName":"e-","name":"mine"}`},
		{"inside a text", `{"message":"uid ae417968-4f69-40da-9228-2434671e9c66 in room-17"}`, `{"message":"uid <uid> in {{ns}}"}`},
		{"in lists", `[{"time":"2023-03-28T13:55:52Z"},[17,true,null]]`, `[{"time":"<time>"},[17,true,null]]`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := Mask(decode(t, test.in), strings.NewReplacer("room-17", "{{ns}}"))
			if diff := cmp.Diff(decode(t, test.want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(got, Mask(got, nil)); diff != "" {
				t.Errorf("masked once more (-once +twice)\n%s", diff)
			}
		})
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
