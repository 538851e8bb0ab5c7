package network

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// FuzzAddress compares the readers of addresses that need no second parser with those of
// apimachinery that they stand in for.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "010.0.0.1", "2001:DB8::1", "::ffff:01.2.3.4", "02001:00db8::0", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path := field.NewPath("p")
		addr, ok := ParseIP(s)
		if want := len(validation.IsValidIPForLegacyField(path, s, false, nil)) == 0; ok != want {
			t.Errorf("ParseIP(%q) = %v, %t, want %t", s, addr, ok, want)
		}
		if !ok {
			return
		}
		warnings := validation.GetWarningsForIP(path, s)
		if got, want := IsCanonicalIP(s), len(warnings) == 0; got != want {
			t.Errorf("IsCanonicalIP(%q) = %t, warnings %q", s, got, warnings)
		}
		for _, warning := range warnings {
			if want := fmt.Sprintf("%q", addr); !strings.Contains(warning, want) {
				t.Errorf("ParseIP(%q) = %v, but apimachinery says: %s", s, addr, warning)
			}
		}
	})
}

// FuzzName compares the readers of names that need no regular expression with those of
// apimachinery that they stand in for.
func FuzzName(f *testing.F) {
	for _, s := range []string{
		"a.b-c", "-a", "a..b", "a-", "A_b.C", "x/y", "example.com/Name", "a\n", "\u00e9", "",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a.", 126) + "a", strings.Repeat("a", 254),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if faults := validation.IsDNS1123Label(s); IsDNSLabel(s) != (len(faults) == 0) {
			t.Errorf("IsDNSLabel(%q) = %t, but apimachinery says %q", s, IsDNSLabel(s), faults)
		}
		if faults := validation.IsDNS1123Subdomain(s); IsDNSSubdomain(s) != (len(faults) == 0) {
			t.Errorf("IsDNSSubdomain(%q) = %t, but apimachinery says %q", s, IsDNSSubdomain(s), faults)
		}
	})
}
