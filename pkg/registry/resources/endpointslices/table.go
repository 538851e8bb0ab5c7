package endpointslices

import (
	"fmt"
	"strconv"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry"
)

// shown is how many ports and addresses a table shows, as kubectl's users know it.
const shown = 3

var columns = []metav1.TableColumnDefinition{
	registry.NameColumn,
	{Name: "AddressType", Type: "string", Description: discoveryv1.EndpointSlice{}.SwaggerDoc()["addressType"]},
	{Name: "Ports", Type: "string", Description: discoveryv1.EndpointSlice{}.SwaggerDoc()["ports"]},
	{Name: "Endpoints", Type: "string", Description: discoveryv1.EndpointSlice{}.SwaggerDoc()["endpoints"]},
	registry.AgeColumn,
}

func cells(obj runtime.Object) []any {
	slice := obj.(*discoveryv1.EndpointSlice)
	var ports, addresses []string
	for i := range slice.Ports[:min(len(slice.Ports), shown)] {
		port := &slice.Ports[i]
		text := ptr.Deref(port.Name, "*")
		if port.Port != nil {
			text = strconv.Itoa(int(*port.Port))
		}
		ports = append(ports, text)
	}
	count := 0
	for i := range slice.Endpoints {
		of := slice.Endpoints[i].Addresses
		count += len(of)
		addresses = append(addresses, of[:min(len(of), shown-len(addresses))]...)
	}
	return []any{slice.Name, string(slice.AddressType), summary(ports, len(slice.Ports)), summary(addresses, count), registry.Age}
}

// summary is the first few texts of count.
func summary(texts []string, count int) string {
	text := strings.Join(texts, ",")
	switch more := count - len(texts); {
	case more > 0:
		return fmt.Sprintf("%s + %d more...", text, more)
	case text == "":
		return "<unset>"
	}
	return text
}
