package endpointslices

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/registry/resources/network"
)

// Strategy is the registry.Strategy of EndpointSlices. Its objects are
// *discoveryv1.EndpointSlice.
type Strategy struct{}

var _ registry.Strategy = Strategy{}

// Default gives ports that lack them the empty name and TCP.
func (Strategy) Default(obj runtime.Object) {
	ports := obj.(*discoveryv1.EndpointSlice).Ports
	for i := range ports {
		if ports[i].Name == nil {
			ports[i].Name = ptr.To("")
		}
		if ports[i].Protocol == nil {
			ports[i].Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

// PrepareForCreate begins to count generations, and drops what the version has no more.
func (Strategy) PrepareForCreate(obj runtime.Object) {
	slice := obj.(*discoveryv1.EndpointSlice)
	slice.Generation = 1
	tidy(slice)
}

// PrepareForUpdate counts the generations, which changes of the labels begin, too: consumers
// find slices by them.
func (Strategy) PrepareForUpdate(obj, old runtime.Object) {
	slice, stored := obj.(*discoveryv1.EndpointSlice), old.(*discoveryv1.EndpointSlice)
	if slice.AddressType != stored.AddressType ||
		!equality.Semantic.DeepEqual(slice.Endpoints, stored.Endpoints) ||
		!equality.Semantic.DeepEqual(slice.Ports, stored.Ports) ||
		!equality.Semantic.DeepEqual(slice.Labels, stored.Labels) {
		slice.Generation = stored.Generation + 1
	}
	tidy(slice)
}

// tidy drops deprecatedTopology, and prints lists without elements as null.
func tidy(slice *discoveryv1.EndpointSlice) {
	if len(slice.Ports) == 0 {
		slice.Ports = nil
	}
	if len(slice.Endpoints) == 0 {
		slice.Endpoints = nil
	}
	for i := range slice.Endpoints {
		if slice.Endpoints[i].DeprecatedTopology != nil {
			slice.Endpoints = withoutTopology(slice.Endpoints)
			return
		}
	}
}

// withoutTopology returns a copy: an update that is tried again shares the list.
func withoutTopology(endpoints []discoveryv1.Endpoint) []discoveryv1.Endpoint {
	tidied := make([]discoveryv1.Endpoint, len(endpoints))
	for i := range endpoints {
		tidied[i] = endpoints[i]
		tidied[i].DeprecatedTopology = nil
	}
	return tidied
}

// Validate returns every fault of a new slice. Valid addresses cost no memory, however many they
// are.
func (Strategy) Validate(obj runtime.Object) field.ErrorList {
	slice := obj.(*discoveryv1.EndpointSlice)
	errs := objectmeta.Validate(&slice.ObjectMeta, true, validation.NameIsDNSSubdomain)
	errs = append(errs, validatePorts(slice.Ports)...)
	endpoints, counts := validateEndpoints(slice)
	errs = append(errs, endpoints...)
	errs = append(errs, validateAddressType(slice.AddressType)...)
	return append(errs, counts...)
}

// ValidateUpdate returns every fault of obj as the successor of old. Endpoints that are faulty
// are tolerated as long as they stay what they were: they were valid when an older version
// stored them, and their owner must be able to change labels and finalizers.
func (Strategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	slice, stored := obj.(*discoveryv1.EndpointSlice), old.(*discoveryv1.EndpointSlice)
	errs := objectmeta.ValidateUpdate(&slice.ObjectMeta, &stored.ObjectMeta, true, validation.NameIsDNSSubdomain)
	changed := slice.AddressType != stored.AddressType
	if changed && slice.AddressType != "" {
		errs = append(errs, validateAddressType(slice.AddressType)...)
	}
	errs = append(errs, validatePorts(slice.Ports)...)
	endpoints, counts := validateEndpoints(slice)
	if len(endpoints)+len(counts) > 0 && equality.Semantic.DeepEqual(slice.Endpoints, stored.Endpoints) {
		endpoints, counts = nil, nil
	}
	errs = append(errs, endpoints...)
	if changed && slice.AddressType == "" {
		errs = append(errs, validateAddressType(slice.AddressType)...)
	}
	if changed {
		errs = append(errs, field.Invalid(addressTypePath, nil, "field is immutable"))
	}
	return append(errs, counts...)
}

// Warnings returns a warning for each IP address that is not in its canonical form, unless a
// controller of Kubernetes, which sees to that, has made the slice, and one for a new slice of
// names.
func (Strategy) Warnings(obj, old runtime.Object) []string {
	slice := obj.(*discoveryv1.EndpointSlice)
	var warnings []string
	if old == nil && slice.AddressType == discoveryv1.AddressTypeFQDN {
		warnings = append(warnings, "spec.addressType: FQDN endpoints are deprecated")
	}
	switch slice.Labels[discoveryv1.LabelManagedBy] {
	case "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io":
		return warnings
	}
	for i := range slice.Endpoints {
		for j, address := range slice.Endpoints[i].Addresses {
			if !network.IsCanonicalIP(address) {
				warnings = append(warnings, network.Warnings(addressesPath(i).Index(j), address)...)
			}
		}
	}
	return warnings
}
