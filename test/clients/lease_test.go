package clients

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

func TestLeaseInformer(t *testing.T) {
	t.Parallel()
	client, namespace, _ := sharedNamespace(t)
	leases := client.CoordinationV1().Leases(namespace)
	create := func(name string) *coordinationv1.Lease {
		t.Helper()
		now := metav1.NowMicro()
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, RenewTime: &now}}
		created, err := leases.Create(t.Context(), lease, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return created
	}
	create("before")

	type change struct{ what, name, holder string }
	changes := make(chan change, 10)
	notify := func(what string, obj any) {
		lease := obj.(*coordinationv1.Lease)
		changes <- change{what, lease.Name, *lease.Spec.HolderIdentity}
	}
	expect := func(want change) {
		t.Helper()
		select {
		case got := <-changes:
			if got != want {
				t.Fatalf("got %v, want %v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("no event, want %v", want)
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Coordination().V1().Leases()
	if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { notify("add", obj) },
		UpdateFunc: func(_, obj any) { notify("update", obj) },
		DeleteFunc: func(obj any) { notify("delete", obj) },
	}); err != nil {
		t.Fatal(err)
	}
	factory.StartWithContext(t.Context())
	t.Cleanup(factory.Shutdown)
	expect(change{"add", "before", "before"})

	lease := create("after")
	expect(change{"add", "after", "after"})
	holder := "another"
	lease.Spec.HolderIdentity = &holder
	updated, err := leases.Update(t.Context(), lease, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	expect(change{"update", "after", "another"})
	known, err := informer.Lister().Leases(namespace).Get("after")
	if err != nil || known.ResourceVersion != updated.ResourceVersion || !known.Spec.RenewTime.Equal(updated.Spec.RenewTime) {
		t.Errorf("the informer has %v (%v), want %v", known, err, updated)
	}
	if err := leases.Delete(t.Context(), "after", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(change{"delete", "after", "another"})
}

func TestKubectlLease(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	manifest := func(holder string) string {
		return k.file("lease.yaml", "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: lock\nspec:\n  holderIdentity: "+holder+
			"\n  leaseDurationSeconds: 15\n  renewTime: 2026-11-26T14:00:00.123456Z\n")
	}
	k.run("get", "leases").ended(0, "", "No resources found in NS namespace.")
	k.run("apply", "-f", manifest("one")).ok("lease.coordination.k8s.io/lock created")
	k.run("apply", "-f", manifest("one")).ok("lease.coordination.k8s.io/lock unchanged")
	k.run("get", "lease").ok("NAME HOLDER AGE", "lock one AGE")
	k.run("get", "leases.v1.coordination.k8s.io", "lock", "-o", "jsonpath={.spec.renewTime}").ok("2026-11-26T14:00:00.123456Z")
	k.run("apply", "-f", manifest("two")).ok("lease.coordination.k8s.io/lock configured")
	k.run("describe", "lease", "lock").contains("Name: lock", "API Version: coordination.k8s.io/v1", "Kind: Lease", "Holder Identity: two", "Lease Duration Seconds: 15")
	k.run("apply", "--server-side", "--field-manager=other", "-f", manifest("three")).
		fails(`conflict with "kubectl-client-side-apply" using coordination.k8s.io/v1: .spec.holderIdentity`)
	k.run("apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", manifest("three")).ok("lease.coordination.k8s.io/lock serverside-applied")
	k.run("patch", "lease", "lock", "--patch", `{"spec":{"leaseTransitions":7}}`).ok("lease.coordination.k8s.io/lock patched")
	k.run("get", "lease", "lock", "-o", "jsonpath={.spec.holderIdentity} {.spec.leaseTransitions}").ok("three 7")
	k.run("patch", "lease", "lock", "--patch", `{"spec":{"leaseDurationSeconds":0}}`).
		fails(`The Lease "lock" is invalid: spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0`)
	k.run("explain", "lease.spec.holderIdentity").contains("GROUP: coordination.k8s.io", "KIND: Lease", "VERSION: v1", "FIELD: holderIdentity <string>")
	k.run("delete", "lease", "lock").contains(`lease.coordination.k8s.io "lock" deleted`)
}
