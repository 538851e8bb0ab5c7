package endpoints

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/registry"
)

// The table shows a few ready addresses, an empty cell where none is ready, and <none> only
// where there are no subsets.
func TestCells(t *testing.T) {
	for subsets, want := range map[string]string{
		`[]`: "<none>",
		`[{"notReadyAddresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]`:          "",
		`[{"addresses":[{"ip":"10.0.0.1"},{"ip":"2001:db8::1"}]}]`:                   "10.0.0.1,2001:db8::1",
		`[{"addresses":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}],"ports":[{"port":80}]}]`: "10.0.0.1:80,[fd00::1]:80",
		`[{"addresses":[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}],"ports":[{"port":1},{"port":2}]},
			{"notReadyAddresses":[{"ip":"10.0.0.8"}],"ports":[{"port":3}]}]`: "10.0.0.1:1,10.0.0.2:1,10.0.0.1:2 + 1 more...",
	} {
		got := cells(decode(t, `{"metadata":{"name":"x"},"subsets":`+subsets+`}`))
		if diff := cmp.Diff([]any{"x", want, registry.Age}, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", subsets, diff)
		}
	}
}
