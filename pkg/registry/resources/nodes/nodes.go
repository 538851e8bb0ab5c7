// Package nodes serves core/v1 Nodes for programs that ask for them beside other things: there
// are none.
package nodes

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

// Resource describes core/v1 Node.
func Resource() *registry.Resource {
	addresses := corev1.NodeStatus{}.SwaggerDoc()["addresses"]
	info := corev1.NodeSystemInfo{}.SwaggerDoc()
	return &registry.Resource{
		API: metav1.APIResource{
			Version: "v1", Kind: "Node", Name: "nodes", SingularName: "node",
			ShortNames: []string{"no"}, StorageVersionHash: "XwShjMxG9Fs=",
		},
		New:              func() registry.APIObject { return &corev1.Node{} },
		AddToScheme:      corev1.AddToScheme,
		Strategy:         registry.NoStrategy{},
		NoObjects:        "this server has no nodes, and runs nothing on any: register what runs elsewhere by its addresses, as Endpoints or EndpointSlices",
		Fields:           []string{"spec.unschedulable"},
		NoCreateOnUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn,
			{Name: "Status", Type: "string", Description: "The status of the node"},
			{Name: "Roles", Type: "string", Description: "The roles of the node"},
			registry.AgeColumn,
			{Name: "Version", Type: "string", Description: info["kubeletVersion"]},
			{Name: "Internal-IP", Type: "string", Priority: 1, Description: addresses},
			{Name: "External-IP", Type: "string", Priority: 1, Description: addresses},
			{Name: "OS-Image", Type: "string", Priority: 1, Description: info["osImage"]},
			{Name: "Kernel-Version", Type: "string", Priority: 1, Description: info["kernelVersion"]},
			{Name: "Container-Runtime", Type: "string", Priority: 1, Description: info["containerRuntimeVersion"]},
		},
		Cells: func(obj runtime.Object) []any {
			node := obj.(*corev1.Node)
			info := &node.Status.NodeInfo
			return []any{node.Name, "", "", registry.Age, info.KubeletVersion, "", "", info.OSImage, info.KernelVersion, info.ContainerRuntimeVersion}
		},
	}
}
