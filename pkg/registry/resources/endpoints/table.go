package endpoints

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

// shownEndpoints is how many addresses a table shows, as kubectl's users know it.
const shownEndpoints = 3

var columns = []metav1.TableColumnDefinition{
	registry.NameColumn,
	{Name: "Endpoints", Type: "string", Description: corev1.Endpoints{}.SwaggerDoc()["subsets"]},
	registry.AgeColumn,
}

func cells(obj runtime.Object) []any {
	endpoints := obj.(*corev1.Endpoints)
	return []any{endpoints.Name, summary(endpoints), registry.Age}
}

// summary is the first few ready addresses with their ports, and how many more there are.
func summary(endpoints *corev1.Endpoints) string {
	var shown []string
	more := 0
	add := func(text string) {
		if len(shown) < shownEndpoints {
			shown = append(shown, text)
		} else {
			more++
		}
	}
	for i := range endpoints.Subsets {
		subset := &endpoints.Subsets[i]
		if len(subset.Ports) == 0 {
			for _, address := range subset.Addresses {
				add(address.IP)
			}
		}
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				add(net.JoinHostPort(address.IP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	if len(endpoints.Subsets) == 0 {
		return "<none>"
	}
	text := strings.Join(shown, ",")
	if more > 0 {
		text += fmt.Sprintf(" + %d more...", more)
	}
	return text
}
