package services

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

var columns = []metav1.TableColumnDefinition{
	registry.NameColumn,
	{Name: "Type", Type: "string", Description: corev1.ServiceSpec{}.SwaggerDoc()["type"]},
	{Name: "Cluster-IP", Type: "string", Description: corev1.ServiceSpec{}.SwaggerDoc()["clusterIP"]},
	{Name: "External-IP", Type: "string", Description: corev1.ServiceSpec{}.SwaggerDoc()["externalIPs"]},
	{Name: "Port(s)", Type: "string", Description: corev1.ServiceSpec{}.SwaggerDoc()["ports"]},
	registry.AgeColumn,
	{Name: "Selector", Type: "string", Priority: 1, Description: corev1.ServiceSpec{}.SwaggerDoc()["selector"]},
}

const none = "<none>"

func cells(obj runtime.Object) []any {
	service := obj.(*corev1.Service)
	clusterIP := none
	if len(service.Spec.ClusterIPs) > 0 {
		clusterIP = service.Spec.ClusterIPs[0]
	}
	return []any{
		service.Name, string(service.Spec.Type), clusterIP, externalIP(service), ports(service.Spec.Ports),
		registry.Age, labels.FormatLabels(service.Spec.Selector),
	}
}

// externalIP is where the Service is reached from outside of the cluster.
func externalIP(service *corev1.Service) string {
	addresses := slices.Clone(service.Spec.ExternalIPs)
	otherwise := none
	switch service.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return service.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		addresses = append(ingress(service.Status.LoadBalancer.Ingress), addresses...)
		otherwise = "<pending>"
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
	default:
		return "<unknown>"
	}
	if len(addresses) == 0 {
		return otherwise
	}
	return strings.Join(addresses, ",")
}

// ingress are the addresses and names of a balancer in alphabetical order, each once.
func ingress(all []corev1.LoadBalancerIngress) []string {
	var found []string
	for i := range all {
		if all[i].IP != "" {
			found = append(found, all[i].IP)
		} else if all[i].Hostname != "" {
			found = append(found, all[i].Hostname)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func ports(all []corev1.ServicePort) string {
	if len(all) == 0 {
		return none
	}
	texts := make([]string, len(all))
	for i := range all {
		port := &all[i]
		if port.NodePort > 0 {
			texts[i] = fmt.Sprintf("%d:%d/%s", port.Port, port.NodePort, port.Protocol)
		} else {
			texts[i] = fmt.Sprintf("%d/%s", port.Port, port.Protocol)
		}
	}
	return strings.Join(texts, ",")
}
