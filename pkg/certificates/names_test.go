package certificates

import (
	"slices"
	"testing"
)

func TestServingNames(t *testing.T) {
	for name, test := range map[string]struct {
		bind, external string
		want           []string
	}{
		"loopback":  {bind: "127.0.0.1"},
		"address":   {bind: "192.0.2.7", want: []string{"192.0.2.7"}},
		"with zone": {bind: "fe80::1%eth0", want: []string{"fe80::1"}},
		"mapped":    {bind: "::ffff:192.0.2.7", want: []string{"192.0.2.7"}},
		"external":  {bind: "127.0.0.1", external: "berth.example.com", want: []string{"berth.example.com"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ServingNames(test.bind, test.external)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"localhost", "127.0.0.1", "::1"}
			if name := hostname(); name != "" && name != "localhost" {
				want = append(want, name)
			}
			want = append(want, test.want...)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	// The addresses of the interfaces are this machine's; loopback's is one of them.
	every, err := ServingNames("0.0.0.0", "")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(every, "127.0.0.1") || slices.Contains(every, "0.0.0.0") {
		t.Errorf("with 0.0.0.0: %v", every)
	}
}
