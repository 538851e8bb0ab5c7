package services

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// hasClusterIP reports whether Services of the type have an address, or None.
func hasClusterIP(spec *corev1.ServiceSpec) bool { return spec.Type != corev1.ServiceTypeExternalName }

// usesNodePorts reports whether the Service is reached by ports of nodes.
func usesNodePorts(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeNodePort ||
		spec.Type == corev1.ServiceTypeLoadBalancer && ptr.Deref(spec.AllocateLoadBalancerNodePorts, true)
}

// mayUseNodePorts reports whether Services of the type may be reached by ports of nodes.
func mayUseNodePorts(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer
}

// usesHealthCheck reports whether nodes tell a balancer by a port whether they have endpoints.
func usesHealthCheck(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeLoadBalancer && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// keepGiven gives an update that leaves them out the addresses and node ports that the Service
// has: who sends the same manifest again does not want to change them.
func keepGiven(spec, old *corev1.ServiceSpec) {
	if hasClusterIP(old) && hasClusterIP(spec) {
		if spec.ClusterIP == "" {
			spec.ClusterIP = old.ClusterIP
		}
		if len(spec.ClusterIPs) == 0 && len(old.ClusterIPs) > 0 {
			spec.ClusterIPs = slices.Clone(old.ClusterIPs)
		}
	}
	if usesNodePorts(old) && usesNodePorts(spec) {
		keepNodePorts(spec, old)
	}
	if usesHealthCheck(old) && usesHealthCheck(spec) && spec.HealthCheckNodePort == 0 {
		spec.HealthCheckNodePort = old.HealthCheckNodePort
	}
}

// keepNodePorts gives ports without a node port that which the port of their name had, unless
// another port has it now.
func keepNodePorts(spec, old *corev1.ServiceSpec) {
	before, taken := map[string]int32{}, map[int32]bool{}
	for i := range old.Ports {
		before[old.Ports[i].Name] = old.Ports[i].NodePort
	}
	for i := range spec.Ports {
		taken[spec.Ports[i].NodePort] = true
	}
	ports := slices.Clone(spec.Ports)
	for i := range ports {
		if had := before[ports[i].Name]; ports[i].NodePort == 0 && !taken[had] {
			ports[i].NodePort = had
		}
	}
	spec.Ports = ports
}

// alignAddresses makes clusterIPs follow where a client changes clusterIP alone.
func alignAddresses(spec, old *corev1.ServiceSpec) {
	unchanged := slices.Equal(spec.ClusterIPs, old.ClusterIPs)
	switch {
	case spec.ClusterIP == old.ClusterIP:
		if len(spec.ClusterIPs) == 0 && len(old.ClusterIPs) > 0 {
			spec.ClusterIPs = slices.Clone(old.ClusterIPs)
		}
	case unchanged && spec.ClusterIP == "":
		spec.ClusterIPs = nil
	case unchanged:
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
}

// dropUngiven drops what settle has given a headless Service that becomes one of a type for which None
// is not valid: nobody has asked for None, and kube-apiserver would have allocated an address instead.
func dropUngiven(spec *corev1.ServiceSpec, old *corev1.Service) {
	if !mayUseNodePorts(spec) || !isHeadless(spec) || !isHeadless(&old.Spec) || isGiven(old, "clusterIP") || isGiven(old, "clusterIPs") {
		return
	}
	spec.ClusterIP, spec.ClusterIPs = "", nil
	if ptr.Equal(spec.IPFamilyPolicy, old.Spec.IPFamilyPolicy) && !isGiven(old, "ipFamilyPolicy") && !isGiven(old, "ipFamilies") {
		spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
	}
}

// isGiven reports whether a client owns the field of the spec, or may own it: nobody knows who owns
// what where that is not recorded or cannot be read.
func isGiven(service *corev1.Service, name string) bool {
	for _, entry := range service.ManagedFields {
		var fields fieldpath.Set
		if entry.FieldsV1 == nil || fields.FromJSON(entry.FieldsV1.GetRawReader()) != nil {
			return true
		}
		if fields.Has(fieldpath.MakePathOrDie("spec", name)) {
			return true
		}
	}
	return len(service.ManagedFields) == 0
}

// dropInternalTraffic drops a policy that the type has no use for; a wrong one is left to be found.
func dropInternalTraffic(spec *corev1.ServiceSpec) {
	if policy := spec.InternalTrafficPolicy; spec.Type == corev1.ServiceTypeExternalName && policy != nil && slices.Contains(internalPolicies, *policy) {
		spec.InternalTrafficPolicy = nil
	}
}

// dropMeaningless drops fields that have no meaning for the new type, as long as the client
// leaves them as they were.
func dropMeaningless(spec, old *corev1.ServiceSpec) {
	if hasClusterIP(old) && !hasClusterIP(spec) {
		if spec.ClusterIP == old.ClusterIP && slices.Equal(spec.ClusterIPs, old.ClusterIPs) {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		if slices.Equal(spec.IPFamilies, old.IPFamilies) {
			spec.IPFamilies = nil
		}
		if ptr.Equal(spec.IPFamilyPolicy, old.IPFamilyPolicy) {
			spec.IPFamilyPolicy = nil
		}
	}
	if mayUseNodePorts(old) && !mayUseNodePorts(spec) {
		dropNodePorts(spec, old)
	}
	if usesHealthCheck(old) && !usesHealthCheck(spec) && spec.HealthCheckNodePort == old.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if old.Type == corev1.ServiceTypeLoadBalancer && spec.Type != corev1.ServiceTypeLoadBalancer {
		if ptr.Equal(spec.AllocateLoadBalancerNodePorts, old.AllocateLoadBalancerNodePorts) {
			spec.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(spec.LoadBalancerClass, old.LoadBalancerClass) {
			spec.LoadBalancerClass = nil
		}
	}
	if isExternal(old) && !isExternal(spec) && spec.ExternalTrafficPolicy == old.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
}

// dropNodePorts drops the node ports, unless there is one that was not there before.
func dropNodePorts(spec, old *corev1.ServiceSpec) {
	before := map[int32]bool{0: true}
	for i := range old.Ports {
		before[old.Ports[i].NodePort] = true
	}
	ports := slices.Clone(spec.Ports)
	for i := range ports {
		if !before[ports[i].NodePort] {
			return
		}
		ports[i].NodePort = 0
	}
	spec.Ports = ports
}

// validateChange returns the faults of what an update changes and may not.
func validateChange(spec, old *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	if hasClusterIP(spec) && hasClusterIP(old) {
		ungiven := isHeadless(old) && len(spec.ClusterIPs) == 0 // see dropUngiven: a None that was given stays
		if !ungiven && (!isHeadless(spec) || !isHeadless(old)) {
			errs = append(errs, validateChangedIPs(spec, old)...)
		}
		if !isHeadless(spec) && !isHeadless(old) {
			errs = append(errs, validateChangedFamilies(spec, old)...)
		}
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && old.Type == spec.Type && !ptr.Equal(spec.LoadBalancerClass, old.LoadBalancerClass) {
		errs = append(errs, field.Invalid(specPath.Child("loadBalancerClass"), spec.LoadBalancerClass, "may not change once set"))
	}
	errs = append(errs, validateBalancerClass(spec)...)
	if was := old.HealthCheckNodePort; was != 0 && usesHealthCheck(spec) && usesHealthCheck(old) && spec.HealthCheckNodePort != was {
		errs = append(errs, field.Forbidden(specPath.Child("healthCheckNodePort"), "field is immutable"))
	}
	return errs
}

// validateChangedIPs: addresses stay; a second one may come, and go with a change to a single
// stack.
func validateChangedIPs(spec, old *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	is, was := spec.ClusterIPs, old.ClusterIPs
	if len(is) == len(was) {
		for i := range was {
			if is[i] != was[i] {
				errs = append(errs, field.Invalid(clusterIPsPath.Index(i), is, "may not change once set"))
			}
		}
		return errs
	}
	if len(is) == 0 {
		errs = append(errs, field.Invalid(clusterIPsPath.Index(0), is, "primary clusterIP can not be unset"))
	}
	if len(is) > 0 && len(was) > 0 && is[0] != was[0] {
		errs = append(errs, field.Invalid(clusterIPsPath.Index(0), is, "may not change once set"))
	}
	if len(is) == 1 && len(was) > 1 && !isSingle(spec) {
		errs = append(errs, field.Invalid(policyPath, spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP"))
	}
	return errs
}

// validateChangedFamilies is the same for families. Its texts tell of other fields here and
// there, as kube-apiserver's do.
func validateChangedFamilies(spec, old *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	is, was := spec.IPFamilies, old.IPFamilies
	if len(is) == len(was) {
		for i := range was {
			if is[i] != was[i] {
				errs = append(errs, field.Invalid(familiesPath.Index(0), is, "may not change once set"))
			}
		}
		return errs
	}
	if len(is) < len(was) && len(spec.ClusterIPs) == 0 && len(old.ClusterIPs) > 0 {
		errs = append(errs, field.Invalid(familiesPath.Index(0), is, "primary ipFamily can not be unset"))
	}
	if len(is) > 0 && len(was) > 0 && is[0] != was[0] {
		errs = append(errs, field.Invalid(familiesPath.Index(0), spec.ClusterIPs, "may not change once set"))
	}
	if len(is) == 1 && len(was) > 1 && !isSingle(spec) {
		errs = append(errs, field.Invalid(policyPath, spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily"))
	}
	return errs
}
