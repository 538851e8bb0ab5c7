package objectjson_test

import (
	"testing"

	"github.com/berth-project/berth/pkg/registry/objectjson"
)

func TestDepth(t *testing.T) {
	for text, want := range map[string]int{
		``: 0, `1`: 0, `"{["`: 0, `{}`: 1, `[]`: 1, `[{},[]]`: 2, `{"a":{"b":[1]},"c":{}}`: 3,
		`{"a\"{[":{}}`: 2, `{"a\\":{"b":"\\"}}`: 2, `{"f:a":{".":{},"f:b":{}}}`: 3,
	} {
		if got := objectjson.Depth(text); got != want {
			t.Errorf("%s is %d deep, want %d", text, got, want)
		}
	}
}
