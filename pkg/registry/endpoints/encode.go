package endpoints

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry/objectjson"
)

// typicalSize is room for Endpoints without addresses, typicalAddressSize for each of these,
// in bytes of JSON.
const typicalSize, typicalAddressSize = 640, 192

// encodeJSON is the registry.Resource's EncodeJSON of Endpoints.
func encodeJSON(obj runtime.Object) ([]byte, error) {
	e := obj.(*corev1.Endpoints)
	size := typicalSize
	for i := range e.Subsets {
		size += typicalAddressSize * (len(e.Subsets[i].Addresses) + len(e.Subsets[i].NotReadyAddresses))
	}
	dst := append(make([]byte, 0, size), '{')
	dst = objectjson.AppendField(dst, "kind", e.Kind)
	dst = objectjson.AppendField(dst, "apiVersion", e.APIVersion)
	dst, err := objectjson.AppendObjectMeta(objectjson.AppendName(dst, "metadata"), &e.ObjectMeta)
	dst = objectjson.AppendList(dst, "subsets", e.Subsets, appendSubset)
	return append(dst, '}'), err
}

func appendSubset(dst []byte, subset *corev1.EndpointSubset) []byte {
	dst = append(dst, '{')
	dst = objectjson.AppendList(dst, "addresses", subset.Addresses, appendAddress)
	dst = objectjson.AppendList(dst, "notReadyAddresses", subset.NotReadyAddresses, appendAddress)
	dst = objectjson.AppendList(dst, "ports", subset.Ports, appendPort)
	return append(dst, '}')
}

func appendAddress(dst []byte, address *corev1.EndpointAddress) []byte {
	dst = objectjson.AppendString(append(dst, `{"ip":`...), address.IP)
	dst = objectjson.AppendField(dst, "hostname", address.Hostname)
	if address.NodeName != nil {
		dst = objectjson.AppendString(append(dst, `,"nodeName":`...), *address.NodeName)
	}
	if address.TargetRef != nil {
		dst = appendObjectReference(append(dst, `,"targetRef":`...), address.TargetRef)
	}
	return append(dst, '}')
}

func appendObjectReference(dst []byte, ref *corev1.ObjectReference) []byte {
	dst = append(dst, '{')
	dst = objectjson.AppendField(dst, "kind", ref.Kind)
	dst = objectjson.AppendField(dst, "namespace", ref.Namespace)
	dst = objectjson.AppendField(dst, "name", ref.Name)
	dst = objectjson.AppendField(dst, "uid", string(ref.UID))
	dst = objectjson.AppendField(dst, "apiVersion", ref.APIVersion)
	dst = objectjson.AppendField(dst, "resourceVersion", ref.ResourceVersion)
	dst = objectjson.AppendField(dst, "fieldPath", ref.FieldPath)
	return append(dst, '}')
}

func appendPort(dst []byte, port *corev1.EndpointPort) []byte {
	dst = append(dst, '{')
	dst = objectjson.AppendField(dst, "name", port.Name)
	dst = strconv.AppendInt(objectjson.AppendName(dst, "port"), int64(port.Port), 10)
	dst = objectjson.AppendField(dst, "protocol", string(port.Protocol))
	if port.AppProtocol != nil {
		dst = objectjson.AppendString(objectjson.AppendName(dst, "appProtocol"), *port.AppProtocol)
	}
	return append(dst, '}')
}
