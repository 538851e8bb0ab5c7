package api

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/berth-project/berth/test/apitest"
)

// client-go's typed client as people use it, in JSON and in protobuf.
func TestTypedClient(t *testing.T) {
	for _, mediaType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(mediaType, func(t *testing.T) {
			config := &rest.Config{
				Host: shared.URL, BearerToken: apitest.Token, QPS: -1,
				TLSClientConfig: rest.TLSClientConfig{CAData: shared.CA},
				ContentConfig:   rest.ContentConfig{ContentType: mediaType, AcceptContentTypes: mediaType},
			}
			core, err := corev1client.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			endpoints := core.Endpoints(newNamespace(t, shared))
			useTypedClient(t, endpoints)
		})
	}
}

func useTypedClient(t *testing.T, endpoints corev1client.EndpointsInterface) {
	t.Helper()
	ctx := t.Context()
	obj := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}}, Ports: []corev1.EndpointPort{{Port: 80}},
		}},
	}
	created, err := endpoints.Create(ctx, obj, metav1.CreateOptions{FieldManager: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if created.UID == "" || created.Subsets[0].Ports[0].Protocol != corev1.ProtocolTCP || created.ManagedFields[0].Manager != "me" {
		t.Errorf("created %v", created)
	}
	if _, err := endpoints.Create(ctx, obj, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("created again: %v", err)
	}
	got, err := endpoints.Get(ctx, "a", metav1.GetOptions{})
	if err != nil || got.UID != created.UID || got.ResourceVersion != created.ResourceVersion {
		t.Errorf("got %v, %v", got, err)
	}
	list, err := endpoints.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].UID != created.UID {
		t.Errorf("listed %v, %v", list, err)
	}
	uid := created.UID
	if err := endpoints.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
		t.Error(err)
	}
	if _, err := endpoints.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("got after it was deleted: %v", err)
	}
	if _, err := endpoints.Create(ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "A"}}, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || fmt.Sprint(apierrors.ReasonForError(err)) != "Invalid" {
		t.Errorf("created with a bad name: %v", err)
	}
}
