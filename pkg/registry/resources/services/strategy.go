package services

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

// Strategy is the registry.Strategy of Services. Its objects are *corev1.Service.
type Strategy struct{}

var _ registry.Strategy = Strategy{}

// Default fills in what does not depend on addresses: see settle for those.
func (Strategy) Default(obj runtime.Object) {
	service := obj.(*corev1.Service)
	spec := &service.Spec
	defaultAffinity(spec)
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.TargetPort == intstr.FromInt32(0) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
	if isExternal(spec) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if hasInternalTraffic(spec) && spec.InternalTrafficPolicy == nil {
		spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	if spec.AllocateLoadBalancerNodePorts == nil {
		spec.AllocateLoadBalancerNodePorts = ptr.To(true)
	}
	ingress := service.Status.LoadBalancer.Ingress
	for i := range ingress {
		if ingress[i].IP != "" && ingress[i].IPMode == nil {
			ingress[i].IPMode = ptr.To(corev1.LoadBalancerIPModeVIP)
		}
	}
}

func defaultAffinity(spec *corev1.ServiceSpec) {
	switch spec.SessionAffinity {
	case "", corev1.ServiceAffinityNone:
		spec.SessionAffinity, spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
	case corev1.ServiceAffinityClientIP:
		config := spec.SessionAffinityConfig
		if config == nil || config.ClientIP == nil || config.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)},
			}
		}
	}
}

// isExternal reports whether the Service is reached from outside of the cluster.
func isExternal(spec *corev1.ServiceSpec) bool {
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP:
		return len(spec.ExternalIPs) > 0
	}
	return false
}

func hasInternalTraffic(spec *corev1.ServiceSpec) bool {
	switch spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return true
	}
	return false
}

// PrepareForCreate drops the status, and settles addresses and their families.
func (Strategy) PrepareForCreate(obj runtime.Object) {
	service := obj.(*corev1.Service)
	service.Status = corev1.ServiceStatus{}
	if service.Spec.ClusterIP != "" && len(service.Spec.ClusterIPs) == 0 {
		service.Spec.ClusterIPs = []string{service.Spec.ClusterIP}
	}
	settle(&service.Spec, nil)
	dropInternalTraffic(&service.Spec)
}

// PrepareForUpdate keeps the status, settles addresses and their families, and drops what a
// change of the type leaves without a meaning.
func (Strategy) PrepareForUpdate(obj, old runtime.Object) {
	service, stored := obj.(*corev1.Service), old.(*corev1.Service)
	service.Status = *stored.Status.DeepCopy()
	keepGiven(&service.Spec, &stored.Spec)
	alignAddresses(&service.Spec, &stored.Spec)
	dropUngiven(&service.Spec, stored)
	settle(&service.Spec, &stored.Spec)
	dropInternalTraffic(&service.Spec)
	dropMeaningless(&service.Spec, &stored.Spec)
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer {
		service.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

// Validate returns every fault of a new Service; those of addresses and their families alone
// where there are any.
func (Strategy) Validate(obj runtime.Object) field.ErrorList {
	service := obj.(*corev1.Service)
	if errs := validateFamilies(&service.Spec, nil); len(errs) > 0 {
		return errs
	}
	errs := objectmeta.Validate(&service.ObjectMeta, true, validation.NameIsDNSLabel)
	return append(errs, validateService(service, nil)...)
}

// ValidateUpdate returns every fault of obj as the successor of old, as Validate does.
func (Strategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	service, stored := obj.(*corev1.Service), old.(*corev1.Service)
	if errs := validateFamilies(&service.Spec, &stored.Spec); len(errs) > 0 {
		return errs
	}
	errs := objectmeta.ValidateUpdate(&service.ObjectMeta, &stored.ObjectMeta, true, objectmeta.PathSegmentName)
	errs = append(errs, validateChange(&service.Spec, &stored.Spec)...)
	return append(errs, validateService(service, stored)...)
}

// statusStrategy is for writes of the status, which change nothing of spec.
type statusStrategy struct{}

var _ registry.UpdateStrategy = statusStrategy{}

func (statusStrategy) PrepareForUpdate(obj, old runtime.Object) {
	obj.(*corev1.Service).Spec = *old.(*corev1.Service).Spec.DeepCopy()
}

func (statusStrategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	service, stored := obj.(*corev1.Service), old.(*corev1.Service)
	errs := objectmeta.ValidateUpdate(&service.ObjectMeta, &stored.ObjectMeta, true, objectmeta.PathSegmentName)
	return append(errs, validateBalancer(service, stored)...)
}
