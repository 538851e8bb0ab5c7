// Package pods serves core/v1 Pods for programs that ask for them beside other things, such as
// Prometheus and CoreDNS: there are none.
package pods

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

// Resource describes core/v1 Pod.
func Resource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Version: "v1", Kind: "Pod", Name: "pods", SingularName: "pod", Namespaced: true,
			ShortNames: []string{"po"}, Categories: []string{"all"}, StorageVersionHash: "xPOwRZ+Yhw8=",
		},
		New:         func() registry.APIObject { return &corev1.Pod{} },
		AddToScheme: corev1.AddToScheme,
		Strategy:    registry.NoStrategy{},
		NoObjects:   "this server runs no pods: register what runs elsewhere by its addresses, as Endpoints or EndpointSlices",
		Fields: []string{
			"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
			"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
		},
		NoCreateOnUpdate: true,
		ReturnDeleted:    true,
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn,
			{Name: "Ready", Type: "string", Description: "The aggregate readiness state of this pod for accepting traffic."},
			{Name: "Status", Type: "string", Description: "The aggregate status of the containers in this pod."},
			{Name: "Restarts", Type: "string", Description: "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."},
			registry.AgeColumn,
			{Name: "IP", Type: "string", Priority: 1, Description: corev1.PodStatus{}.SwaggerDoc()["podIP"]},
			{Name: "Node", Type: "string", Priority: 1, Description: corev1.PodSpec{}.SwaggerDoc()["nodeName"]},
			{Name: "Nominated Node", Type: "string", Priority: 1, Description: corev1.PodStatus{}.SwaggerDoc()["nominatedNodeName"]},
			{Name: "Readiness Gates", Type: "string", Priority: 1, Description: corev1.PodSpec{}.SwaggerDoc()["readinessGates"]},
		},
		Cells: func(obj runtime.Object) []any {
			pod := obj.(*corev1.Pod)
			return []any{pod.Name, "", string(pod.Status.Phase), "", registry.Age, pod.Status.PodIP, pod.Spec.NodeName, pod.Status.NominatedNodeName, ""}
		},
	}
}
