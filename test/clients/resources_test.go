package clients

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"
)

// seen counts by name what informers were told of the objects of a namespace: other tests have the
// same names in others.
type seen struct {
	namespace string
	mu        sync.Mutex
	told      map[string]string // of the object, as a kind and its name
}

func (s *seen) handler(kind string) cache.ResourceEventHandler {
	note := func(obj any, what string) {
		about := obj.(metav1.Object)
		if about.GetNamespace() != s.namespace {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told[kind+"/"+about.GetName()] += what
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { note(obj, "+") },
		UpdateFunc: func(before, obj any) {
			if before.(metav1.Object).GetResourceVersion() != obj.(metav1.Object).GetResourceVersion() {
				note(obj, "~")
			}
		},
		DeleteFunc: func(obj any) { note(obj, "-") },
	}
}

func (s *seen) waitFor(t *testing.T, want map[string]string) {
	t.Helper()
	eventually(t, "the informers", func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for name, told := range want {
			if s.told[name] != told {
				return fmt.Errorf("%v, want %v", s.told, want)
			}
		}
		return nil
	})
}

// One factory, which asks for streaming lists in protobuf, follows every kind: those that there are
// none of sync, too.
func TestInformersOfEveryKind(t *testing.T) {
	t.Parallel()
	client := newClient(t, protobuf(shared.config(t)))
	namespace := makeNamespace(t, client)
	ctx := testContext(t)
	s := &seen{namespace: namespace, told: map[string]string{}}
	factory := informers.NewSharedInformerFactory(client, 0)
	followed := map[string]cache.SharedIndexInformer{
		"service": factory.Core().V1().Services().Informer(), "slice": factory.Discovery().V1().EndpointSlices().Informer(),
		"event": factory.Core().V1().Events().Informer(), "new event": factory.Events().V1().Events().Informer(),
		"pod": factory.Core().V1().Pods().Informer(), "node": factory.Core().V1().Nodes().Informer(),
		"namespace": factory.Core().V1().Namespaces().Informer(), "endpoints": factory.Core().V1().Endpoints().Informer(),
		"lease": factory.Coordination().V1().Leases().Informer(),
	}
	for kind, informer := range followed {
		if _, err := informer.AddEventHandler(s.handler(kind)); err != nil {
			t.Fatal(err)
		}
	}
	stop, cancel := context.WithCancel(ctx)
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	factory.Start(stop.Done())
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			t.Fatalf("%s does not sync", kind)
		}
	}

	services, slices := client.CoreV1().Services(namespace), client.DiscoveryV1().EndpointSlices(namespace)
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}}
	created, err := services.Create(ctx, service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	created.Labels = map[string]string{"a": "b"}
	if _, err := services.Update(ctx, created, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	created, err = services.Apply(ctx, applycorev1.Service("web", namespace).WithSpec(applycorev1.ServiceSpec().WithPorts(applycorev1.ServicePort().WithName("dns").WithPort(80).WithProtocol(corev1.ProtocolUDP))), metav1.ApplyOptions{FieldManager: "other"})
	if !apierrors.IsInvalid(err) { // the first port needs a name now
		t.Errorf("an apply of a second port returns %v, %v", created, err)
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}, Ports: []discoveryv1.EndpointPort{{}},
	}
	if _, err := slices.Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	listed, err := slices.List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
	if err != nil || len(listed.Items) != 1 || *listed.Items[0].Ports[0].Protocol != corev1.ProtocolTCP {
		t.Errorf("the slices are %+v (%v)", listed, err)
	}
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e"}, EventTime: metav1.NowMicro(), ReportingController: "c", ReportingInstance: "i", Action: "A", Reason: "R", Type: "Normal",
		Regarding: corev1.ObjectReference{Kind: "Service", Namespace: namespace, Name: "web"},
	}
	if _, err := client.EventsV1().Events(namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, remove := range map[string]func(context.Context, string, metav1.DeleteOptions) error{"web": services.Delete, "web-1": slices.Delete, "e": client.CoreV1().Events(namespace).Delete} {
		if err := remove(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.waitFor(t, map[string]string{"service/web": "+~-", "slice/web-1": "+-", "event/e": "+-", "new event/e": "+-"})
	_, err = client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, metav1.CreateOptions{})
	if !apierrors.IsMethodNotSupported(err) || !strings.Contains(err.Error(), "this server runs no pods") {
		t.Errorf("a pod is answered with %v", err)
	}
	for _, kind := range []string{"pod", "node"} {
		if known := followed[kind].GetStore().ListKeys(); len(known) > 0 {
			t.Errorf("there are %ss: %v", kind, known)
		}
	}
}

// client-go's recorders of both versions report, and count what happens again.
func TestEventRecorders(t *testing.T) {
	t.Parallel()
	client, namespace, _ := sharedNamespace(t)
	about := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web", UID: "u"}}

	old := record.NewBroadcaster()
	old.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(namespace)})
	t.Cleanup(old.Shutdown)
	recorder := old.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "test"})
	for range 3 {
		recorder.Event(about, corev1.EventTypeWarning, "Old", "it happened")
	}
	expectCount(t, client, namespace, "Old", 3)

	current := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	ctx, cancel := context.WithCancel(testContext(t))
	t.Cleanup(func() { cancel(); current.Shutdown() })
	if err := current.StartRecordingToSinkWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	fresh := current.NewRecorder(scheme.Scheme, "example.com/test")
	for range 2 {
		fresh.Eventf(about, nil, corev1.EventTypeNormal, "New", "Testing", "it happened, too")
	}
	expectCount(t, client, namespace, "New", 2)
}

// expectCount waits for an event that says in both versions how often it has happened.
func expectCount(t *testing.T, client kubernetes.Interface, namespace, reason string, want int32) {
	t.Helper()
	eventually(t, "the event "+reason, func(ctx context.Context) error {
		opts := metav1.ListOptions{FieldSelector: "reason=" + reason}
		core, err := client.CoreV1().Events(namespace).List(ctx, opts)
		if err != nil {
			return err
		}
		shown, err := client.EventsV1().Events(namespace).List(ctx, opts)
		if err != nil {
			return err
		}
		if len(core.Items) != 1 || len(shown.Items) != 1 {
			return fmt.Errorf("%d and %d events", len(core.Items), len(shown.Items))
		}
		count := max(core.Items[0].Count, shown.Items[0].DeprecatedCount)
		if core.Items[0].Series != nil && shown.Items[0].Series != nil {
			count = min(core.Items[0].Series.Count, shown.Items[0].Series.Count)
		}
		if count != want || core.Items[0].Message != shown.Items[0].Note {
			return fmt.Errorf("it has happened %d times, want %d", count, want)
		}
		return nil
	})
}

// kubectl shows Services with their slices and events, and exposes nothing: there is nothing to be
// exposed.
func TestKubectlServices(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	const manifest = `
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  clusterIP: None
  ports: [{name: metrics, port: 9100}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: metrics, port: 9100}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]
---
apiVersion: v1
kind: Event
metadata: {name: web.1}
involvedObject: {apiVersion: v1, kind: Service, name: web, namespace: NAMESPACE}
type: Warning
reason: Probed
message: it does not answer
source: {component: prober}
`
	text := strings.ReplaceAll(manifest, "NAMESPACE", k.namespace)
	k.runWith(text, "apply", "-f", "-").ok("service/web created", "endpointslice.discovery.k8s.io/web-1 created", "event/web.1 created")
	// Lists that are replaced as a whole have defaults that the manifest lacks.
	k.runWith(text, "apply", "-f", "-").ok("service/web unchanged", "endpointslice.discovery.k8s.io/web-1 configured", "event/web.1 unchanged")
	k.runWith(text, "apply", "--server-side", "-f", "-", "--force-conflicts").contains("service/web serverside-applied")
	k.run("get", "svc", "-o", "wide").ok(
		"NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR",
		"web ClusterIP None <none> 9100/TCP AGE <none>")
	k.run("get", "endpointslices").ok(
		"NAME ADDRESSTYPE PORTS ENDPOINTS AGE",
		"web-1 IPv4 9100 10.0.0.1,10.0.0.2 AGE")
	k.run("get", "ev").contains("LAST SEEN", "Probed", "service/web", "it does not answer")
	k.run("describe", "svc", "web").contains("metrics 9100/TCP", "10.0.0.1:9100,10.0.0.2:9100")
	k.run("get", "po,no").ended(0, "", "No resources found")
	k.run("get", "svc", "--field-selector=spec.clusterIP=None", "-o", "name").ok("service/web")
	k.run("patch", "svc", "web", "-p", `{"spec":{"ports":[{"name":"web","port":80}]}}`).ok("service/web patched")
	k.run("get", "svc", "web", "-o", "jsonpath={.spec.ports[*].port}").ok("80 9100")
	k.run("create", "service", "nodeport", "np", "--tcp=80").contains("service/np created")
	k.run("create", "service", "externalname", "en", "--external-name=example.com").ok("service/en created")
	k.run("run", "p", "--image=i").fails("this server runs no pods: register what runs elsewhere by its addresses, as Endpoints or EndpointSlices")
	k.run("delete", "svc", "--all").contains(`service "web" deleted`)
	k.run("get", "all").ended(0, "", "No resources found in NS namespace.")
}

// A lease's election reports who leads, and events go when their time is up.
func TestEventsExpire(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--event-ttl=1s")
	client := server.client(t)
	namespace := makeNamespace(t, client)
	ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
	defer cancel()
	w, err := client.EventsV1().Events(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, InvolvedObject: corev1.ObjectReference{Namespace: namespace}}
	if _, err := client.CoreV1().Events(namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ADDED", "DELETED"} {
		if got := nextEvent(t, w); string(got.Type) != want {
			t.Fatalf("got %s, want %s", describe(got), want)
		}
	}
	_, err = client.CoreV1().Events(namespace).Get(ctx, "e", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("after its time there is %v", err)
	}
}
