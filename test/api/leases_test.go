package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

func leasesPath(namespace, name string) string {
	return strings.TrimSuffix("/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/leases/"+name, "/")
}

// leaseBody is a lease with a holder as JSON.
func leaseBody(name, holder string) []byte {
	return []byte(`{"metadata":{"name":"` + name + `"},"spec":{"holderIdentity":"` + holder + `","leaseDurationSeconds":15,"renewTime":"2026-11-26T14:00:00.123456Z"}}`)
}

// do sends a request that must be answered with the code, and returns the lease.
func do(t *testing.T, method, path string, body []byte, code int, headers ...string) *coordinationv1.Lease {
	t.Helper()
	a := send(t, shared.Client, newRequest(t, shared, method, path, body, headers...))
	checkCode(t, a, code, "")
	return decode[*coordinationv1.Lease](t, a)
}

// fieldsOf are the managers of a lease with the fields that they own.
func fieldsOf(t *testing.T, lease *coordinationv1.Lease) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for _, entry := range lease.ManagedFields {
		if entry.APIVersion != "coordination.k8s.io/v1" {
			t.Errorf("an entry of version %q", entry.APIVersion)
		}
		fields[entry.Manager+" "+string(entry.Operation)] = entry.FieldsV1.GetRawString()
	}
	return fields
}

// A resource outside of the core group has owners of its fields like any other.
func TestOwnersOfALease(t *testing.T) {
	ns := newNamespace(t, shared)
	const apply = string(types.ApplyYAMLPatchType)
	created := do(t, http.MethodPost, leasesPath(ns, "")+"?fieldManager=first", leaseBody("a", "one"), 201)
	const all = `{"f:spec":{"f:holderIdentity":{},"f:leaseDurationSeconds":{},"f:renewTime":{}}}`
	if diff := cmp.Diff(map[string]string{"first Update": all}, fieldsOf(t, created)); diff != "" {
		t.Errorf("created (-want +got)\n%s", diff)
	}
	do(t, http.MethodPost, leasesPath(ns, "")+"?fieldManager=second", leaseBody("b", "two"), 201)

	config := []byte(`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"},"spec":{"holderIdentity":"two"}}`)
	patch := leasesPath(ns, "a") + "?fieldManager=second"
	a := send(t, shared.Client, newRequest(t, shared, http.MethodPatch, patch, config, "Content-Type", apply))
	checkCode(t, a, http.StatusConflict, `conflict with \"first\" using coordination.k8s.io/v1: .spec.holderIdentity`)
	taken := do(t, http.MethodPatch, patch+"&force=true", config, 200, "Content-Type", apply)
	want := map[string]string{
		"first Update": `{"f:spec":{"f:leaseDurationSeconds":{},"f:renewTime":{}}}`,
		"second Apply": `{"f:spec":{"f:holderIdentity":{}}}`,
	}
	if diff := cmp.Diff(want, fieldsOf(t, taken)); diff != "" || *taken.Spec.HolderIdentity != "two" {
		t.Errorf("applied to %s (-want +got)\n%s", *taken.Spec.HolderIdentity, diff)
	}
	unknown := []byte(`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"},"spec":{"holder":"two"}}`)
	a = send(t, shared.Client, newRequest(t, shared, http.MethodPatch, patch, unknown, "Content-Type", apply))
	checkCode(t, a, http.StatusBadRequest, "spec.holder")
}

// The bodies of client-go's leader election are protobuf.
func TestLeaseInEachMediaType(t *testing.T) {
	for _, mediaType := range mediaTypes {
		t.Run(mediaType, func(t *testing.T) {
			ns := newNamespace(t, shared)
			as := []string{"Content-Type", mediaType, "Accept", mediaType}
			sent := &coordinationv1.Lease{}
			sent.SetGroupVersionKind(coordinationv1.SchemeGroupVersion.WithKind("Lease"))
			if err := json.Unmarshal(leaseBody("lock", "one"), sent); err != nil {
				t.Fatal(err)
			}
			created := do(t, http.MethodPost, leasesPath(ns, ""), encode(t, mediaType, sent), 201, as...)
			if diff := cmp.Diff(sent.Spec, created.Spec); diff != "" || created.UID == "" {
				t.Errorf("created %s (-want +got)\n%s", created.UID, diff)
			}
			renewed := created.DeepCopy()
			now := metav1.NewMicroTime(created.Spec.RenewTime.Add(2500001 * time.Microsecond))
			renewed.Spec.RenewTime = &now
			updated := do(t, http.MethodPut, leasesPath(ns, "lock"), encode(t, mediaType, renewed), 200, as...)
			if diff := cmp.Diff(renewed.Spec, updated.Spec); diff != "" || updated.ResourceVersion == created.ResourceVersion {
				t.Errorf("renewed at %s (-want +got)\n%s", updated.ResourceVersion, diff)
			}
			a := send(t, shared.Client, newRequest(t, shared, http.MethodPut, leasesPath(ns, "lock"), encode(t, mediaType, renewed), as...))
			checkCode(t, a, http.StatusConflict, "Conflict")
			renewed.ResourceVersion = ""
			a = send(t, shared.Client, newRequest(t, shared, http.MethodPut, leasesPath(ns, "lock"), encode(t, mediaType, renewed), as...))
			checkCode(t, a, http.StatusUnprocessableEntity, "metadata.resourceVersion")
			a = send(t, shared.Client, newRequest(t, shared, http.MethodGet, leasesPath(ns, ""), nil, as...))
			list := decode[*coordinationv1.LeaseList](t, a)
			if len(list.Items) != 1 || cmp.Diff(updated.Spec, list.Items[0].Spec) != "" {
				t.Errorf("listed %+v", list.Items)
			}
		})
	}
}

func TestPatchesOfALease(t *testing.T) {
	ns := newNamespace(t, shared)
	do(t, http.MethodPost, leasesPath(ns, ""), leaseBody("a", "one"), 201)
	for _, test := range []struct {
		patchType types.PatchType
		patch     string
		want      string // holder and duration
	}{
		{types.MergePatchType, `{"spec":{"holderIdentity":"two"}}`, "two 15"},
		{types.StrategicMergePatchType, `{"spec":{"holderIdentity":"three","leaseDurationSeconds":20}}`, "three 20"},
		{types.JSONPatchType, `[{"op":"test","path":"/spec/renewTime","value":"2026-11-26T14:00:00.123456Z"},{"op":"replace","path":"/spec/holderIdentity","value":"four"}]`, "four 20"},
		{types.ApplyYAMLPatchType, "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: a}\nspec: {leaseDurationSeconds: 25}", "four 25"},
	} {
		path := leasesPath(ns, "a") + "?fieldManager=m"
		if test.patchType == types.ApplyYAMLPatchType {
			path += "&force=true"
		}
		got := do(t, http.MethodPatch, path, []byte(test.patch), 200, "Content-Type", string(test.patchType))
		if text := fmt.Sprint(*got.Spec.HolderIdentity, " ", *got.Spec.LeaseDurationSeconds); text != test.want {
			t.Errorf("%s: got %s, want %s", test.patchType, text, test.want)
		}
	}
	a := send(t, shared.Client, newRequest(t, shared, http.MethodPatch, leasesPath(ns, "a"), []byte(`{"spec":{"renewTime":"2026-11-26T14:00:00Z"}}`), "Content-Type", string(types.MergePatchType)))
	checkCode(t, a, http.StatusUnprocessableEntity, `cannot parse \"Z\" as \".000000\"`)
}

// A watch and a table show a lease; the deletion of its namespace removes it.
func TestLeasesAreWatchedAndRemovedWithTheirNamespace(t *testing.T) {
	ns := newNamespace(t, shared)
	resp, err := shared.Client.Do(newRequest(t, shared, http.MethodGet, leasesPath(ns, "")+"?watch=1", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	next := func(kind, holder string) {
		t.Helper()
		var event struct {
			Type   string
			Object coordinationv1.Lease
		}
		if err := events.Decode(&event); err != nil || event.Type != kind || *event.Object.Spec.HolderIdentity != holder || event.Object.Kind != "Lease" {
			t.Fatalf("got %+v, %v, want %s of %s", event, err, kind, holder)
		}
	}
	created := do(t, http.MethodPost, leasesPath(ns, ""), leaseBody("a", "one"), 201)
	next("ADDED", "one")
	*created.Spec.HolderIdentity = "two"
	do(t, http.MethodPut, leasesPath(ns, "a"), encode(t, runtime.ContentTypeJSON, created), 200)
	next("MODIFIED", "two")

	var table metav1.Table
	readJSON(t, leasesPath(ns, ""), &table, "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	if len(table.ColumnDefinitions) != 3 || table.ColumnDefinitions[1].Name != "Holder" || len(table.Rows) != 1 {
		t.Fatalf("got table %+v", table)
	}
	if diff := cmp.Diff([]any{"a", "two"}, table.Rows[0].Cells[:2]); diff != "" {
		t.Errorf("cells (-want +got)\n%s", diff)
	}

	checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodDelete, "/api/v1/namespaces/"+ns, nil)), 200, "Terminating")
	next("DELETED", "two")
	eventually(t, "the namespace is deleted", func() bool {
		return send(t, shared.Client, newRequest(t, shared, http.MethodGet, "/api/v1/namespaces/"+ns, nil)).code == http.StatusNotFound
	})
	a := send(t, shared.Client, newRequest(t, shared, http.MethodPost, leasesPath(ns, ""), leaseBody("a", "one")))
	checkCode(t, a, http.StatusNotFound, `namespaces \"`+ns+`\" not found`)
}

// A time that has no form of its own in UTC would make the stored object unreadable.
func TestTimesThatCannotBeReadAgain(t *testing.T) {
	ns := newNamespace(t, shared)
	renew := func(at string) []byte {
		return []byte(`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"},"spec":{"renewTime":"` + at + `"}}`)
	}
	const tooLate = "9999-12-31T23:59:59.000000-05:00"
	for name, req := range map[string]*http.Request{
		"create":  newRequest(t, shared, http.MethodPost, leasesPath(ns, ""), renew(tooLate)),
		"dry run": newRequest(t, shared, http.MethodPost, leasesPath(ns, "")+"?dryRun=All", renew(tooLate)),
		"apply":   newRequest(t, shared, http.MethodPatch, leasesPath(ns, "a")+"?fieldManager=x", renew(tooLate), "Content-Type", string(types.ApplyYAMLPatchType)),
	} {
		t.Run(name, func(t *testing.T) {
			checkCode(t, send(t, shared.Client, req), 422, "spec.renewTime")
		})
	}
	do(t, http.MethodPost, leasesPath(ns, ""), renew("9999-12-31T23:59:59.000000Z"), 201)
	a := send(t, shared.Client, newRequest(t, shared, http.MethodPatch, leasesPath(ns, "a"), renew(tooLate), "Content-Type", string(types.MergePatchType)))
	checkCode(t, a, 422, "spec.renewTime")
	a = send(t, shared.Client, newRequest(t, shared, http.MethodGet, leasesPath(ns, ""), nil))
	checkCode(t, a, 200, "9999-12-31T23:59:59.000000Z")
	if warning := a.header.Get("Warning"); warning != "" {
		t.Errorf("the list warns of %s", warning)
	}
}
