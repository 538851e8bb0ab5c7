package endpoints

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// FuzzValidate holds that no decoded JSON makes the strategy panic, that defaulting twice
// is defaulting once, and that the quick questions of validation never pass what the slow
// rules refuse.
func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"x","namespace":"ns"},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		var e corev1.Endpoints
		if json.Unmarshal(doc, &e) != nil {
			return
		}
		s := Strategy{}
		s.Default(&e)
		once, _ := json.Marshal(&e)
		s.Default(&e)
		if twice, _ := json.Marshal(&e); string(once) != string(twice) {
			t.Errorf("defaulted once: %s, twice: %s", once, twice)
		}
		s.PrepareForCreate(&e)
		errs := s.Validate(&e)
		if len(errs) > 0 {
			_ = errs.ToAggregate().Error()
		}
		s.Warnings(&e)
		s.PrepareForUpdate(&e, &corev1.Endpoints{})
		s.ValidateUpdate(&e, &corev1.Endpoints{})
		for _, err := range s.ValidateUpdate(&e, e.DeepCopy()) {
			if strings.HasPrefix(err.Field, "subsets") {
				t.Errorf("an update that changes nothing: %v", err)
			}
		}
		for i := range e.Subsets {
			compareWithRules(t, &e.Subsets[i])
		}
	})
}

func compareWithRules(t *testing.T, ss *corev1.EndpointSubset) {
	path := field.NewPath("p")
	for _, addresses := range [][]corev1.EndpointAddress{ss.Addresses, ss.NotReadyAddresses} {
		for i := range addresses {
			if errs := validateAddress(&addresses[i], path); isValidAddress(&addresses[i]) != (len(errs) == 0) {
				t.Errorf("address %+v: quick answer %t, faults %v", addresses[i], isValidAddress(&addresses[i]), errs)
			}
		}
	}
	for i := range ss.Ports {
		for _, nameRequired := range []bool{false, true} {
			if errs := validatePort(&ss.Ports[i], nameRequired, path); isValidPort(&ss.Ports[i], nameRequired) && len(errs) > 0 {
				t.Errorf("port %+v: quick answer true, faults %v", ss.Ports[i], errs)
			}
		}
	}
}

// FuzzAddress compares the readers of addresses that need no second parser with those of
// apimachinery that they stand in for.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "010.0.0.1", "2001:DB8::1", "::ffff:01.2.3.4", "02001:00db8::0", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path := field.NewPath("p")
		addr, ok := parseIPSloppy(s)
		if want := len(validation.IsValidIPForLegacyField(path, s, false, nil)) == 0; ok != want {
			t.Errorf("parseIPSloppy(%q) = %v, %t, want %t", s, addr, ok, want)
		}
		if !ok {
			return
		}
		warnings := validation.GetWarningsForIP(path, s)
		if got, want := isCanonicalIP(s), len(warnings) == 0; got != want {
			t.Errorf("isCanonicalIP(%q) = %t, warnings %q", s, got, warnings)
		}
		for _, warning := range warnings {
			if want := fmt.Sprintf("%q", addr); !strings.Contains(warning, want) {
				t.Errorf("parseIPSloppy(%q) = %v, but apimachinery says: %s", s, addr, warning)
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
		if faults := validation.IsDNS1123Label(s); isDNSLabel(s) != (len(faults) == 0) {
			t.Errorf("isDNSLabel(%q) = %t, but apimachinery says %q", s, isDNSLabel(s), faults)
		}
		if faults := validation.IsDNS1123Subdomain(s); isDNSSubdomain(s) != (len(faults) == 0) {
			t.Errorf("isDNSSubdomain(%q) = %t, but apimachinery says %q", s, isDNSSubdomain(s), faults)
		}
	})
}
