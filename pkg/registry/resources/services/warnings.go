package services

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry/resources/network"
)

// Warnings returns kube-apiserver's, and one for what that would allocate, once the Service lacks it.
func (Strategy) Warnings(obj, old runtime.Object) []string {
	service := obj.(*corev1.Service)
	spec := &service.Spec
	var warnings []string
	if _, ok := service.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		warnings = append(warnings, fmt.Sprintf("annotation %s is deprecated, please use %s instead", corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	headless := spec.Type == corev1.ServiceTypeClusterIP && spec.ClusterIP == corev1.ClusterIPNone
	if !headless {
		warnings = append(warnings, ipWarnings(clusterIPsPath, spec.ClusterIPs)...)
	}
	add := func(applies bool, warning string) {
		if applies {
			warnings = append(warnings, warning)
		}
	}
	add(headless && spec.LoadBalancerIP != "", "spec.loadBalancerIP is ignored for headless services")
	add(headless && len(spec.ExternalIPs) > 0, "spec.externalIPs is ignored for headless services")
	add(headless && spec.SessionAffinity != corev1.ServiceAffinityNone, "spec.SessionAffinity is ignored for headless services")
	warnings = append(warnings, ipWarnings(specPath.Child("externalIPs"), spec.ExternalIPs)...)
	named := spec.Type == corev1.ServiceTypeExternalName
	add(!headless && !named && len(spec.ExternalIPs) > 0, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	if spec.LoadBalancerIP != "" {
		warnings = append(warnings, network.Warnings(specPath.Child("loadBalancerIP"), spec.LoadBalancerIP)...)
	}
	warnings = append(warnings, rangeWarnings(spec.LoadBalancerSourceRanges)...)
	add(named && len(spec.ExternalIPs) > 0, `spec.externalIPs is ignored when spec.type is "ExternalName"`)
	add(!named && spec.ExternalName != "", `spec.externalName is ignored when spec.type is not "ExternalName"`)
	if distribution := spec.TrafficDistribution; distribution != nil && *distribution == corev1.ServiceTrafficDistributionPreferClose {
		warnings = append(warnings, fmt.Sprintf("spec.trafficDistribution: %q is deprecated; use %q", corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone))
	}
	before, _ := old.(*corev1.Service)
	isNews := before == nil || !lacksAllocation(&before.Spec)
	add(isNews && lacksAllocation(spec), "this server allocates no addresses and no ports: the Service has those that you give it, in spec.clusterIP, spec.clusterIPs, spec.ports[*].nodePort and spec.healthCheckNodePort; without a clusterIP it has no address in DNS")
	return warnings
}

// lacksAllocation reports whether kube-apiserver would allocate something for the Service.
func lacksAllocation(spec *corev1.ServiceSpec) bool {
	if spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	return !isHeadless(spec) && len(spec.ClusterIPs) < len(spec.IPFamilies) ||
		usesNodePorts(spec) && slices.ContainsFunc(spec.Ports, func(port corev1.ServicePort) bool { return port.NodePort == 0 }) ||
		usesHealthCheck(spec) && spec.HealthCheckNodePort == 0
}

// Warnings returns a warning for each address that is not in its canonical form.
func (statusStrategy) Warnings(obj, _ runtime.Object) []string {
	var warnings []string
	path := field.NewPath("status", "loadBalancer", "ingress")
	for i, ingress := range obj.(*corev1.Service).Status.LoadBalancer.Ingress {
		warnings = append(warnings, network.Warnings(path.Index(i), ingress.IP)...)
	}
	return warnings
}

func ipWarnings(path *field.Path, ips []string) []string {
	var warnings []string
	for i, ip := range ips {
		warnings = append(warnings, network.Warnings(path.Index(i), ip)...)
	}
	return warnings
}

// rangeWarnings says nothing about what is no network at all, which GetWarningsForCIDR would log
// as a bug.
func rangeWarnings(ranges []string) []string {
	var warnings []string
	for i, cidr := range ranges {
		if len(validation.IsValidCIDRForLegacyField(nil, cidr, false, nil)) == 0 {
			warnings = append(warnings, validation.GetWarningsForCIDR(specPath.Child("loadBalancerSourceRanges").Index(i), cidr)...)
		}
	}
	return warnings
}
