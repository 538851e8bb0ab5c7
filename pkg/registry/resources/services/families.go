package services

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry/resources/network"
)

// A Service's clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy follow from each other, and
// from what they were before. settle fills in what a client leaves out, unless validateFamilies
// finds faults: then these are all that the client is told.

var (
	specPath       = field.NewPath("spec")
	clusterIPsPath = specPath.Child("clusterIPs")
	familiesPath   = specPath.Child("ipFamilies")
	policyPath     = specPath.Child("ipFamilyPolicy")

	families = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	policies = []corev1.IPFamilyPolicy{corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack}
)

// settle makes a Service of type ClusterIP headless that has no address: nobody would route
// one that was allocated. It fills in the policy and the families, and drops what a change to
// a single stack releases. old is nil for a new Service.
func settle(spec, old *corev1.ServiceSpec) {
	if spec.Type == corev1.ServiceTypeClusterIP && spec.ClusterIP == "" && len(spec.ClusterIPs) == 0 {
		spec.ClusterIP, spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	}
	if spec.Type == corev1.ServiceTypeExternalName || staysPreferDual(spec, old) {
		return
	}
	if spec.IPFamilyPolicy == nil {
		spec.IPFamilyPolicy = defaultPolicy(spec, old)
	}
	if old != nil && isSingle(spec) {
		if len(spec.ClusterIPs) > 1 && slices.Equal(spec.ClusterIPs, old.ClusterIPs) {
			spec.ClusterIPs = spec.ClusterIPs[:1:1]
		}
		if len(spec.IPFamilies) > 1 && slices.Equal(spec.IPFamilies, old.IPFamilies) {
			spec.IPFamilies = spec.IPFamilies[:1:1]
		}
	}
	if len(validateFamilies(spec, old)) > 0 {
		return
	}
	all := slices.Clone(spec.IPFamilies)
	for i := len(all); i < len(spec.ClusterIPs) && spec.ClusterIPs[i] != corev1.ClusterIPNone; i++ {
		all = append(all, familyOf(spec.ClusterIPs[i]))
	}
	if len(all) == 0 {
		all = append(all, corev1.IPv4Protocol)
	}
	if len(all) == 1 && !isSingle(spec) {
		all = append(all, otherFamily(all[0]))
	}
	spec.IPFamilies = all
}

// staysPreferDual reports whether an update leaves alone what a Service that prefers two stacks
// has: then it is neither given a second one nor deprived of it.
func staysPreferDual(spec, old *corev1.ServiceSpec) bool {
	return old != nil && old.Type == spec.Type && hasInternalTraffic(spec) &&
		ptr.Deref(spec.IPFamilyPolicy, "") == corev1.IPFamilyPolicyPreferDualStack &&
		ptr.Deref(old.IPFamilyPolicy, corev1.IPFamilyPolicyPreferDualStack) == corev1.IPFamilyPolicyPreferDualStack &&
		slices.Equal(spec.ClusterIPs, old.ClusterIPs) && slices.Equal(spec.IPFamilies, old.IPFamilies)
}

// defaultPolicy is what it was, or what fits the Service: one without a selector may have
// endpoints of both families.
func defaultPolicy(spec, old *corev1.ServiceSpec) *corev1.IPFamilyPolicy {
	switch {
	case old != nil && old.IPFamilyPolicy != nil:
		return ptr.To(*old.IPFamilyPolicy)
	case spec.ClusterIP == corev1.ClusterIPNone && len(spec.Selector) == 0:
		return ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	}
	return ptr.To(corev1.IPFamilyPolicySingleStack)
}

func isSingle(spec *corev1.ServiceSpec) bool {
	return ptr.Deref(spec.IPFamilyPolicy, "") == corev1.IPFamilyPolicySingleStack
}

func isHeadless(spec *corev1.ServiceSpec) bool {
	return len(spec.ClusterIPs) == 1 && spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// familyOf returns the family of a valid address.
func familyOf(ip string) corev1.IPFamily {
	if addr, ok := network.ParseIP(ip); ok && addr.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func otherFamily(family corev1.IPFamily) corev1.IPFamily {
	if family == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// validateFamilies returns the faults of addresses and families. What settle makes of a valid
// Service is valid, too.
func validateFamilies(spec, old *corev1.ServiceSpec) field.ErrorList {
	if spec.Type == corev1.ServiceTypeExternalName || staysPreferDual(spec, old) {
		return nil
	}
	if errs := validateAddresses(spec, old); len(errs) > 0 {
		return errs
	}
	var errs field.ErrorList
	invalid := func(message string) {
		errs = append(errs, field.Invalid(policyPath, spec.IPFamilyPolicy, message))
	}
	single := isSingle(spec)
	if !single && old != nil && len(spec.ClusterIPs) > 0 && len(spec.ClusterIPs) < len(old.ClusterIPs) {
		invalid("must be 'SingleStack' to release the secondary cluster IP")
	}
	if !single && old != nil && len(spec.IPFamilies) > 0 && len(spec.IPFamilies) < len(old.IPFamilies) {
		invalid("must be 'SingleStack' to release the secondary IP family")
	}
	if single && len(spec.ClusterIPs) == 2 {
		invalid("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified")
	}
	if single && len(spec.IPFamilies) == 2 {
		invalid("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
	}
	return errs
}

// validateAddresses returns the faults that the fields have by themselves and beside each other.
func validateAddresses(spec, old *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	ips := spec.ClusterIPs
	switch {
	case spec.ClusterIP == "" && len(ips) > 0:
		errs = append(errs, field.Invalid(clusterIPsPath, ips, "must be empty when `clusterIP` is not specified"))
	case spec.ClusterIP != "" && len(ips) == 0:
		errs = append(errs, field.Required(clusterIPsPath, ""))
	case spec.ClusterIP != "" && ips[0] != spec.ClusterIP:
		errs = append(errs, field.Invalid(clusterIPsPath, ips, "first value must match `clusterIP`"))
	}
	for i, family := range spec.IPFamilies {
		if !slices.Contains(families, family) {
			errs = append(errs, field.NotSupported(familiesPath.Index(i), family, families))
		}
		if slices.Contains(spec.IPFamilies[:i], family) {
			errs = append(errs, field.Duplicate(familiesPath.Index(i), family))
		}
		if i >= maxTold {
			break
		}
	}
	if policy := spec.IPFamilyPolicy; policy != nil && !slices.Contains(policies, *policy) {
		errs = append(errs, field.NotSupported(policyPath, policy, policies))
	}
	faulty := validateIPs(ips, old)
	errs = append(errs, faulty...)
	if len(ips) > 2 {
		errs = append(errs, field.Invalid(clusterIPsPath, ips, "may only hold up to 2 values"))
	}
	if len(faulty) > 0 {
		return errs // what else there is to say of them would mislead
	}
	if len(ips) > 1 && !slices.ContainsFunc(ips[1:], func(ip string) bool { return familyOf(ip) != familyOf(ips[0]) }) {
		errs = append(errs, field.Invalid(clusterIPsPath, ips, "may specify no more than one IP for each IP family"))
	}
	if isHeadless(spec) {
		return errs
	}
	for i, ip := range ips[:min(len(ips), len(spec.IPFamilies))] {
		if family := spec.IPFamilies[i]; slices.Contains(families, family) && family != familyOf(ip) {
			errs = append(errs, field.Invalid(clusterIPsPath.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", family, i)))
		}
	}
	return errs
}

// maxTold is from which element on faults of a list that may have two are not told: those that
// there are say that it is too long.
const maxTold = 100

// validateIPs returns the faults of each of clusterIPs.
func validateIPs(ips []string, old *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	var before []string
	if old != nil {
		before = old.ClusterIPs
	}
	for i, ip := range ips[:min(len(ips), maxTold)] {
		switch {
		case i > 0 && ip == corev1.ClusterIPNone:
			errs = append(errs, validation.IsValidIPForLegacyField(clusterIPsPath.Index(i), ip, true, nil)...)
		case i > 0 || ip != corev1.ClusterIPNone:
			errs = append(errs, validation.IsValidIPForLegacyField(clusterIPsPath.Index(i), ip, true, before)...)
		case len(ips) > 1:
			errs = append(errs, field.Invalid(clusterIPsPath, ips, "'None' must be the first and only value"))
		}
	}
	return errs
}
