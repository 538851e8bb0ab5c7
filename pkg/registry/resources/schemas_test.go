package resources

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
)

// Field ownership by the documents that are served is that of upstream's own schema.
func TestSchemasTrackTheFieldsOfUpstream(t *testing.T) {
	ours, upstream := TypeConverter(), applyconfigurations.NewTypeConverter(Scheme())
	now, micro, flag, text := metav1.NewTime(time.Unix(1, 0).UTC()), metav1.NewMicroTime(time.Unix(1, 0).UTC()), true, "x"
	meta := metav1.ObjectMeta{
		Name: "a", GenerateName: "a", Namespace: "b", SelfLink: "/", UID: "u", ResourceVersion: "1", Generation: 1,
		CreationTimestamp: now, DeletionTimestamp: &now, DeletionGracePeriodSeconds: new(int64),
		Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "1"}, Finalizers: []string{"f/f", "g/g"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "1", Controller: &flag, BlockOwnerDeletion: &flag}},
		ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "m", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)}},
	}
	address := corev1.EndpointAddress{IP: "10.0.0.1", Hostname: "h", NodeName: &text, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p", FieldPath: "f"}}
	rules := []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"x"}, ResourceNames: []string{"n"}}}
	for _, obj := range []runtime.Object{
		&corev1.Endpoints{
			TypeMeta: metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"}, ObjectMeta: meta,
			Subsets: []corev1.EndpointSubset{{
				Addresses: []corev1.EndpointAddress{address}, NotReadyAddresses: []corev1.EndpointAddress{address},
				Ports: []corev1.EndpointPort{{Name: "n", Port: 1, Protocol: "TCP", AppProtocol: &text}},
			}},
		},
		&corev1.Service{
			TypeMeta: metav1.TypeMeta{Kind: "Service", APIVersion: "v1"}, ObjectMeta: meta,
			Spec: corev1.ServiceSpec{
				ClusterIP: "None", ClusterIPs: []string{"None"}, ExternalIPs: []string{"192.0.2.1"}, Selector: map[string]string{"a": "b"}, Type: "ClusterIP",
				IPFamilies: []corev1.IPFamily{"IPv4"}, LoadBalancerSourceRanges: []string{"10.0.0.0/8"}, LoadBalancerClass: &text,
				SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32)}},
				Ports:                 []corev1.ServicePort{{Name: "n", Port: 1, Protocol: "TCP", TargetPort: intstr.FromString("x"), AppProtocol: &text}, {Port: 1, Protocol: "UDP", TargetPort: intstr.FromInt32(2)}},
			},
			Status: corev1.ServiceStatus{
				LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "x", Ports: []corev1.PortStatus{{Port: 1}}}}},
				Conditions:   []metav1.Condition{{Type: "T", Status: "True"}},
			},
		},
		&discoveryv1.EndpointSlice{
			TypeMeta: metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"}, ObjectMeta: meta, AddressType: "IPv4",
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Hostname: &text, Conditions: discoveryv1.EndpointConditions{Ready: &flag}}},
			Ports:     []discoveryv1.EndpointPort{{Name: &text, Port: new(int32)}},
		},
		&corev1.Event{
			TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "v1"}, ObjectMeta: meta, InvolvedObject: *address.TargetRef, Related: address.TargetRef,
			Source: corev1.EventSource{Component: "c"}, Series: &corev1.EventSeries{Count: 2, LastObservedTime: micro}, FirstTimestamp: now, EventTime: micro,
		},
		&eventsv1.Event{
			TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "events.k8s.io/v1"}, ObjectMeta: meta, Regarding: *address.TargetRef, Related: address.TargetRef,
			DeprecatedSource: corev1.EventSource{Component: "c"}, Series: &eventsv1.EventSeries{Count: 2, LastObservedTime: micro}, EventTime: micro, Note: "n",
		},
		&corev1.Namespace{
			TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: meta,
			Spec:   corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}},
			Status: corev1.NamespaceStatus{Phase: "Active", Conditions: []corev1.NamespaceCondition{{Type: "T", Status: "True"}}},
		},
		&coordinationv1.Lease{
			TypeMeta: metav1.TypeMeta{Kind: "Lease", APIVersion: "coordination.k8s.io/v1"}, ObjectMeta: meta,
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: &text, LeaseDurationSeconds: new(int32), LeaseTransitions: new(int32), AcquireTime: &micro, RenewTime: &micro,
				Strategy: new(coordinationv1.CoordinatedLeaseStrategy), PreferredHolder: &text,
			},
		},
		&rbacv1.ClusterRole{
			TypeMeta: metav1.TypeMeta{Kind: "ClusterRole", APIVersion: "rbac.authorization.k8s.io/v1"}, ObjectMeta: meta, Rules: rules,
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}}},
		},
		&rbacv1.Role{TypeMeta: metav1.TypeMeta{Kind: "Role", APIVersion: "rbac.authorization.k8s.io/v1"}, ObjectMeta: meta, Rules: rules},
		&rbacv1.RoleBinding{
			TypeMeta: metav1.TypeMeta{Kind: "RoleBinding", APIVersion: "rbac.authorization.k8s.io/v1"}, ObjectMeta: meta,
			RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "u"}},
		},
	} {
		kind := obj.GetObjectKind().GroupVersionKind().Kind
		if got, want := fieldsOf(t, ours, obj), fieldsOf(t, upstream, obj); got != want {
			t.Errorf("%s has the fields\n%s, want\n%s", kind, got, want)
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
		if err != nil {
			t.Fatal(err)
		}
		content["nonsense"] = "x"
		unknown := &unstructured.Unstructured{Object: content}
		_, err = ours.ObjectToTyped(unknown)
		_, want := upstream.ObjectToTyped(unknown)
		if err == nil || want == nil || err.Error() != want.Error() {
			t.Errorf("%s with an unknown field: %v, want %v", kind, err, want)
		}
	}
}

func fieldsOf(t *testing.T, converter managedfields.TypeConverter, obj runtime.Object) string {
	t.Helper()
	typed, err := converter.ObjectToTyped(obj)
	if err != nil {
		t.Fatal(err)
	}
	set, err := typed.ToFieldSet()
	if err != nil {
		t.Fatal(err)
	}
	data, err := set.ToJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
