package services

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	labels "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/resources/network"
)

// The values that fields may have, in the order in which a client is told of them.
var (
	types             = []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort}
	protocols         = []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
	affinities        = []corev1.ServiceAffinity{corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone}
	externalPolicies  = []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal}
	internalPolicies  = []corev1.ServiceInternalTrafficPolicy{corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal}
	distributions     = []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
	ingressModes      = []corev1.LoadBalancerIPMode{corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP}
	portsPath         = specPath.Child("ports")
	sourceRangesPath  = specPath.Child("LoadBalancerSourceRanges") // as kube-apiserver spells it
	onlyLoadBalancers = "may only be used when `type` is 'LoadBalancer'"
)

// validateService returns the faults of a Service besides those of its metadata, and of its
// addresses and families. old is what it replaces, or nil.
func validateService(service, old *corev1.Service) field.ErrorList {
	spec := &service.Spec
	errs := validateTopology(service.Annotations)
	if len(spec.Ports) == 0 && !isHeadless(spec) && spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(portsPath, ""))
	}
	errs = append(errs, validateType(spec)...)
	errs = append(errs, validatePorts(spec.Ports)...)
	if spec.Selector != nil {
		errs = append(errs, labels.ValidateLabels(spec.Selector, specPath.Child("selector"))...)
	}
	errs = append(errs, validateAffinity(spec)...)
	errs = append(errs, validateExternalIPs(spec, old)...)
	if spec.Type == "" {
		errs = append(errs, field.Required(specPath.Child("type"), ""))
	} else if !slices.Contains(types, spec.Type) {
		errs = append(errs, field.NotSupported(specPath.Child("type"), spec.Type, types))
	}
	errs = append(errs, validateUniquePorts(spec)...)
	errs = append(errs, validateSourceRanges(service, old)...)
	balancer := spec.Type == corev1.ServiceTypeLoadBalancer
	if path := specPath.Child("allocateLoadBalancerNodePorts"); spec.AllocateLoadBalancerNodePorts != nil && !balancer {
		errs = append(errs, field.Forbidden(path, onlyLoadBalancers))
	}
	errs = append(errs, validateBalancerClass(spec)...)
	return append(errs, validateTraffic(spec)...)
}

func validateTopology(annotations map[string]string) field.ErrorList {
	hints, hinted := annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, given := annotations[corev1.AnnotationTopologyMode]
	if !hinted || !given || mode == hints {
		return nil
	}
	path := field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode)
	return field.ErrorList{field.Invalid(path, mode, fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))}
}

// validateType returns the faults of what the type forbids or demands.
func validateType(spec *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if isHeadless(spec) {
			errs = append(errs, field.Invalid(clusterIPsPath.Index(0), spec.ClusterIPs[0], fmt.Sprintf("may not be set to 'None' for %s services", spec.Type)))
		}
	case corev1.ServiceTypeExternalName:
		const forbidden = "may not be set for ExternalName services"
		if len(spec.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(clusterIPsPath, forbidden))
		}
		if len(spec.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(familiesPath, forbidden))
		}
		if spec.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(policyPath, forbidden))
		}
		path, name := specPath.Child("externalName"), strings.TrimSuffix(spec.ExternalName, ".")
		if name == "" {
			return append(errs, field.Required(path, ""))
		}
		for _, msg := range validation.IsDNS1123Subdomain(name) {
			errs = append(errs, field.Invalid(path, name, msg))
		}
	}
	return errs
}

// validatePorts returns the faults of each port, or about apierr.EnoughFaults of them.
func validatePorts(ports []corev1.ServicePort) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i := range ports {
		if len(errs) >= apierr.EnoughFaults {
			break
		}
		port, path := &ports[i], portsPath.Index(i)
		switch {
		case port.Name != "":
			for _, msg := range validation.IsDNS1123Label(port.Name) {
				errs = append(errs, field.Invalid(path.Child("name"), port.Name, msg))
			}
			if names[port.Name] {
				errs = append(errs, field.Duplicate(path.Child("name"), port.Name))
			}
			names[port.Name] = true
		case len(ports) > 1:
			errs = append(errs, field.Required(path.Child("name"), ""))
		}
		for _, msg := range validation.IsValidPortNum(int(port.Port)) {
			errs = append(errs, field.Invalid(path.Child("port"), port.Port, msg))
		}
		if port.Protocol == "" {
			errs = append(errs, field.Required(path.Child("protocol"), ""))
		} else if !slices.Contains(protocols, port.Protocol) {
			errs = append(errs, field.NotSupported(path.Child("protocol"), port.Protocol, protocols))
		}
		errs = append(errs, validateTarget(port.TargetPort, path.Child("targetPort"))...)
		if port.AppProtocol != nil {
			for _, msg := range validation.IsQualifiedName(*port.AppProtocol) {
				errs = append(errs, field.Invalid(path.Child("appProtocol"), *port.AppProtocol, msg))
			}
		}
	}
	return errs
}

func validateTarget(target intstr.IntOrString, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch target.Type {
	case intstr.Int:
		for _, msg := range validation.IsValidPortNum(int(target.IntVal)) {
			errs = append(errs, field.Invalid(path, int(target.IntVal), msg))
		}
	case intstr.String:
		for _, msg := range validation.IsValidPortName(target.StrVal) {
			errs = append(errs, field.Invalid(path, target.StrVal, msg))
		}
	default: // protobuf may say anything
		errs = append(errs, field.Invalid(path, int64(target.Type), "must be a number or a name"))
	}
	return errs
}

// portKey is how a client is told of a port that is there twice: as kube-apiserver prints its
// internal form of a port.
type portKey struct {
	Name        string
	Protocol    corev1.Protocol
	AppProtocol *string
	Port        int32
	TargetPort  int32
	NodePort    int32
}

// validateUniquePorts returns the faults of ports beside each other, and of node ports that
// there may not be.
func validateUniquePorts(spec *corev1.ServiceSpec) field.ErrorList {
	var forbidden, nodePorts, ports field.ErrorList
	seen, seenNodePorts := map[portKey]bool{}, map[portKey]bool{}
	for i := range spec.Ports {
		if len(forbidden)+len(nodePorts)+len(ports) >= apierr.EnoughFaults {
			break
		}
		port, path := &spec.Ports[i], portsPath.Index(i)
		if port.NodePort != 0 {
			if spec.Type == corev1.ServiceTypeClusterIP {
				forbidden = append(forbidden, field.Forbidden(path.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			} else {
				for _, msg := range validation.IsValidPortNum(int(port.NodePort)) {
					nodePorts = append(nodePorts, field.Invalid(path.Child("nodePort"), port.NodePort, msg))
				}
			}
			key := portKey{Protocol: port.Protocol, NodePort: port.NodePort}
			if seenNodePorts[key] {
				nodePorts = append(nodePorts, field.Duplicate(path.Child("nodePort"), port.NodePort))
			}
			seenNodePorts[key] = true
		}
		key := portKey{Protocol: port.Protocol, Port: port.Port}
		if seen[key] {
			ports = append(ports, field.Duplicate(path, key))
		}
		seen[key] = true
	}
	return slices.Concat(forbidden, nodePorts, ports)
}

func validateAffinity(spec *corev1.ServiceSpec) field.ErrorList {
	path, config := specPath.Child("sessionAffinityConfig"), spec.SessionAffinityConfig
	switch spec.SessionAffinity {
	case "":
		return field.ErrorList{field.Required(specPath.Child("sessionAffinity"), "")}
	case corev1.ServiceAffinityNone:
		if config != nil {
			return field.ErrorList{field.Forbidden(path, "must not be set when session affinity is None")}
		}
	case corev1.ServiceAffinityClientIP: // Default has filled in the time-out
		timeout := config.ClientIP.TimeoutSeconds
		if *timeout <= 0 || *timeout > maxAffinitySeconds {
			return field.ErrorList{field.Invalid(path.Child("clientIP", "timeoutSeconds"), timeout, fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds))}
		}
	default:
		return field.ErrorList{field.NotSupported(specPath.Child("sessionAffinity"), spec.SessionAffinity, affinities)}
	}
	return nil
}

// maxAffinitySeconds is a day.
const maxAffinitySeconds = 86400

func validateExternalIPs(spec *corev1.ServiceSpec, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	var before []string
	if old != nil {
		before = old.Spec.ExternalIPs
	}
	for i, ip := range spec.ExternalIPs {
		if len(errs) >= apierr.EnoughFaults {
			break
		}
		path := specPath.Child("externalIPs").Index(i)
		faults := validation.IsValidIPForLegacyField(path, ip, true, before)
		if len(faults) == 0 {
			faults = network.ValidateEndpointIP(ip, path)
		}
		errs = append(errs, faults...)
	}
	return errs
}

// validateSourceRanges returns the faults of the networks that a balancer is to be reached from,
// which an annotation may name where the field does not.
func validateSourceRanges(service, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	balancer := service.Spec.Type == corev1.ServiceTypeLoadBalancer
	if ranges := service.Spec.LoadBalancerSourceRanges; len(ranges) > 0 {
		if !balancer {
			errs = append(errs, field.Forbidden(sourceRangesPath, onlyLoadBalancers))
		}
		var before []string
		if old != nil {
			for _, value := range old.Spec.LoadBalancerSourceRanges {
				before = append(before, strings.TrimSpace(value))
			}
		}
		for i, value := range ranges {
			if len(errs) >= apierr.EnoughFaults {
				break
			}
			errs = append(errs, validation.IsValidCIDRForLegacyField(sourceRangesPath.Index(i), strings.TrimSpace(value), true, before)...)
		}
		return errs
	}
	given, ok := service.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !ok {
		return nil
	}
	path := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if !balancer {
		errs = append(errs, field.Forbidden(path, onlyLoadBalancers))
	}
	given = strings.TrimSpace(given)
	if given == "" || old != nil && old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] == service.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] {
		return errs
	}
	for value := range strings.SplitSeq(given, ",") {
		if len(errs) >= apierr.EnoughFaults {
			break
		}
		errs = append(errs, validation.IsValidCIDRForLegacyField(path, strings.TrimSpace(value), true, nil)...)
	}
	return errs
}

func validateBalancerClass(spec *corev1.ServiceSpec) field.ErrorList {
	class, path := spec.LoadBalancerClass, specPath.Child("loadBalancerClass")
	if class == nil {
		return nil
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return field.ErrorList{field.Forbidden(path, onlyLoadBalancers)}
	}
	var errs field.ErrorList
	for _, msg := range validation.IsQualifiedName(*class) {
		errs = append(errs, field.Invalid(path, *class, msg))
	}
	return errs
}

// validateTraffic returns the faults of the policies of traffic. A port of health checks need
// not be there, since none is allocated.
func validateTraffic(spec *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	path, policy := specPath.Child("externalTrafficPolicy"), spec.ExternalTrafficPolicy
	switch {
	case isExternal(spec) && !slices.Contains(externalPolicies, policy):
		errs = append(errs, field.NotSupported(path, policy, externalPolicies))
	case !isExternal(spec) && policy != "":
		errs = append(errs, field.Invalid(path, policy, "may only be set for externally-accessible services"))
	}
	if port := spec.HealthCheckNodePort; port != 0 {
		path := specPath.Child("healthCheckNodePort")
		if usesHealthCheck(spec) {
			for _, msg := range validation.IsValidPortNum(int(port)) {
				errs = append(errs, field.Invalid(path, port, msg))
			}
		} else {
			errs = append(errs, field.Invalid(path, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
		}
	}
	if policy := spec.InternalTrafficPolicy; policy != nil && !slices.Contains(internalPolicies, *policy) {
		errs = append(errs, field.NotSupported(specPath.Child("internalTrafficPolicy"), *policy, internalPolicies))
	}
	if distribution := spec.TrafficDistribution; distribution != nil && !slices.Contains(distributions, *distribution) {
		errs = append(errs, field.NotSupported(specPath.Child("trafficDistribution"), *distribution, distributions))
	}
	return errs
}

// validateBalancer returns the faults of status.loadBalancer.
func validateBalancer(service, old *corev1.Service) field.ErrorList {
	path, ingress := field.NewPath("status", "loadBalancer", "ingress"), service.Status.LoadBalancer.Ingress
	if len(ingress) > 0 && service.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return field.ErrorList{field.Forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	var before []string
	for i := range old.Status.LoadBalancer.Ingress {
		if ip := old.Status.LoadBalancer.Ingress[i].IP; ip != "" {
			before = append(before, ip)
		}
	}
	var errs field.ErrorList
	for i := range ingress {
		if len(errs) >= apierr.EnoughFaults {
			break
		}
		errs = append(errs, validateIngress(&ingress[i], before, path.Index(i))...)
	}
	return errs
}

func validateIngress(ingress *corev1.LoadBalancerIngress, before []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ingress.IP != "" {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("ip"), ingress.IP, true, before)...)
	}
	switch modePath := path.Child("ipMode"); {
	case ingress.IPMode == nil && ingress.IP != "":
		errs = append(errs, field.Required(modePath, "must be specified when `ip` is set"))
	case ingress.IPMode != nil && ingress.IP == "":
		errs = append(errs, field.Forbidden(modePath, "may not be specified when `ip` is not set"))
	case !slices.Contains(ingressModes, ptr.Deref(ingress.IPMode, corev1.LoadBalancerIPModeVIP)):
		errs = append(errs, field.NotSupported(modePath, ingress.IPMode, ingressModes))
	}
	if ingress.Hostname == "" {
		return errs
	}
	for _, msg := range validation.IsDNS1123Subdomain(ingress.Hostname) {
		errs = append(errs, field.Invalid(path.Child("hostname"), ingress.Hostname, msg))
	}
	if _, isIP := network.ParseIP(ingress.Hostname); isIP {
		errs = append(errs, field.Invalid(path.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address"))
	}
	return errs
}
