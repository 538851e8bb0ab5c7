package mirror_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry/mirror"
)

// The weight of the slices is about what they take, and not many times the Endpoints unless they are.
func TestWeight(t *testing.T) {
	plain := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Subsets: make([]corev1.EndpointSubset, 2)}
	for i := range 2000 {
		subset := &plain.Subsets[i%2]
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250)})
	}
	for i := range plain.Subsets {
		plain.Subsets[i].Ports = []corev1.EndpointPort{{Name: "http", Port: 80}, {Name: "dns", Port: 53}}
	}
	ports := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Subsets: []corev1.EndpointSubset{{Addresses: plain.Subsets[0].Addresses[:90]}}}
	sets := ports.DeepCopy()
	for i := range int32(900) {
		ports.Subsets[0].Ports = append(ports.Subsets[0].Ports, corev1.EndpointPort{Name: "x", Port: i + 1})
		p := corev1.EndpointPort{Name: fmt.Sprint("x", i), Port: i + 1}
		sets.Subsets[0].Ports = append(sets.Subsets[0].Ports, p)
		sets.Subsets = append(sets.Subsets, corev1.EndpointSubset{Addresses: plain.Subsets[1].Addresses[i : i+1], Ports: []corev1.EndpointPort{p}})
	}
	notes := ports.DeepCopy()
	notes.Annotations = map[string]string{"a": strings.Repeat("x", 20_000)}
	for name, tc := range map[string]struct {
		endpoints  *corev1.Endpoints
		multiplies bool
	}{
		"full": {sized(3000), false}, "plain": {plain, false},
		"ports of one name": {ports, true}, "ports of several subsets": {sets, true}, "annotations": {notes, true},
	} {
		found, _, err := mirror.Slices(tc.endpoints, nil)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, s := range found {
			data, err := json.Marshal(s.EndpointSlice)
			if err != nil {
				t.Fatal(err)
			}
			size += len(data)
		}
		own, mirrored := mirror.Weight(tc.endpoints)
		if mirrored < size/2 || mirrored > 3*size+5000 || tc.multiplies != (mirrored > 4*own) {
			t.Errorf("%s: %d bytes, and %d in slices, which take %d", name, own, mirrored, size)
		}
	}
}
