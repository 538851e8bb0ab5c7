package endpoints

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry/objectjson"
)

// decodeJSON is the registry.Resource's DecodeJSON of Endpoints.
func decodeJSON(data []byte, obj runtime.Object) bool {
	to := obj.(*corev1.Endpoints)
	d := decoder{Reader: objectjson.NewReader(data)}
	if d.endpoints(to) && d.End() {
		return true
	}
	*to = corev1.Endpoints{}
	return false
}

// decoder reads Endpoints. What thousands of addresses point to comes out of blocks, so
// that it costs a few allocations.
type decoder struct {
	objectjson.Reader
	nodeNames  block[string]
	targetRefs block[corev1.ObjectReference]
}

// block is memory for values of one type, the size of which doubles.
type block[T any] []T

func (b *block[T]) next() *T {
	if len(*b) == cap(*b) {
		*b = make([]T, 0, max(1, 2*cap(*b)))
	}
	*b = (*b)[:len(*b)+1]
	return &(*b)[len(*b)-1]
}

func (d *decoder) endpoints(to *corev1.Endpoints) bool {
	return d.Object(func(name string) (int, bool) {
		switch name {
		case "kind":
			return 0, d.String(&to.Kind)
		case "apiVersion":
			return 1, d.String(&to.APIVersion)
		case "metadata":
			return 2, d.ObjectMeta(&to.ObjectMeta)
		case "subsets":
			return 3, objectjson.List(&d.Reader, &to.Subsets, d.subset)
		}
		return 0, false
	})
}

func (d *decoder) subset(to *corev1.EndpointSubset) bool {
	return d.Object(func(name string) (int, bool) {
		switch name {
		case "addresses":
			return 0, objectjson.List(&d.Reader, &to.Addresses, d.address)
		case "notReadyAddresses":
			return 1, objectjson.List(&d.Reader, &to.NotReadyAddresses, d.address)
		case "ports":
			return 2, objectjson.List(&d.Reader, &to.Ports, d.port)
		}
		return 0, false
	})
}

func (d *decoder) address(to *corev1.EndpointAddress) bool {
	return d.Object(func(name string) (int, bool) {
		switch name {
		case "ip":
			return 0, d.String(&to.IP)
		case "hostname":
			return 1, d.String(&to.Hostname)
		case "nodeName":
			if d.Null() {
				return 2, true
			}
			to.NodeName = d.nodeNames.next()
			return 2, d.String(to.NodeName)
		case "targetRef":
			if d.Null() {
				return 3, true
			}
			to.TargetRef = d.targetRefs.next()
			return 3, d.objectReference(to.TargetRef)
		}
		return 0, false
	})
}

func (d *decoder) objectReference(to *corev1.ObjectReference) bool {
	return d.Object(func(name string) (int, bool) {
		switch name {
		case "kind":
			return 0, d.String(&to.Kind)
		case "namespace":
			return 1, d.String(&to.Namespace)
		case "name":
			return 2, d.String(&to.Name)
		case "uid":
			return 3, d.String((*string)(&to.UID))
		case "apiVersion":
			return 4, d.String(&to.APIVersion)
		case "resourceVersion":
			return 5, d.String(&to.ResourceVersion)
		case "fieldPath":
			return 6, d.String(&to.FieldPath)
		}
		return 0, false
	})
}

func (d *decoder) port(to *corev1.EndpointPort) bool {
	return d.Object(func(name string) (int, bool) {
		switch name {
		case "name":
			return 0, d.String(&to.Name)
		case "port":
			return 1, d.Int32(&to.Port)
		case "protocol":
			return 2, d.String((*string)(&to.Protocol))
		case "appProtocol":
			return 3, objectjson.Pointer(&d.Reader, &to.AppProtocol, d.String)
		}
		return 0, false
	})
}
