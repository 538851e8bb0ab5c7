package endpoints

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
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
		s.Warnings(&e, nil)
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
