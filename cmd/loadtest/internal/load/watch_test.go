package load

import (
	"bufio"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadEvent(t *testing.T) {
	long := strings.Repeat("x", 3*eventHead)
	for name, test := range map[string]struct {
		stream string
		want   []string // names of the objects
		err    string
	}{
		"short ones":          {`{"type":"ADDED","object":{"metadata":{"name":"a"}}}` + "\n" + `{"type":"ADDED","object":{"metadata":{"name":"b"}}}` + "\n", []string{"a", "b"}, "EOF"},
		"a long one":          {`{"type":"ADDED","object":{"metadata":{"name":"a"},"x":"` + long + `"}}` + "\n" + `{"type":"ADDED","object":{"metadata":{"name":"b"}}}` + "\n", []string{"a", "b"}, "EOF"},
		"metadata at its end": {`{"type":"ADDED","object":{"x":"` + long + `","metadata":{"name":"a"}}}` + "\n", []string{"a"}, "EOF"},
		"cut off":             {`{"type":"ADDED","object":{"metadata":{"name":"a"}}}`, nil, "unexpected EOF"},
		"a long one cut off":  {`{"type":"ADDED","object":{"metadata":{"name":"a"},"x":"` + long, nil, "unexpected EOF"},
		"no JSON":             {"gateway time-out\n", nil, "an event cannot be read: "},
		"a long one, no JSON": {long + "\n", nil, "an event cannot be read: "},
		"nothing":             {"", nil, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			lines := bufio.NewReaderSize(strings.NewReader(test.stream), eventHead)
			var got []string
			for {
				e, err := readEvent(lines)
				if err != nil {
					if !strings.HasPrefix(err.Error(), test.err) {
						t.Errorf("it ended with %v, want %s", err, test.err)
					}
					break
				}
				got = append(got, e.name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
