package registry_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Whatever a list asks for, it has objects of its namespace that match, or an error that blames
// the client.
func FuzzListOptions(f *testing.F) {
	s := newStores(f, shared.store)
	namespace, other := s.newNamespace(f), s.newNamespace(f)
	for _, ns := range []string{namespace, other} {
		for _, name := range []string{"a", "b", "c"} {
			s.create(f, ns, labelled(name, name))
		}
	}
	f.Add("app in (a,b),tier", "metadata.name!=a", "", "", int64(1), "/a\x00", int64(5))
	f.Add("!app,x notin (),y>1", `metadata.namespace==\,`, "0", "NotOlderThan", int64(-1), "", int64(0))
	f.Add("app==a", "metadata.name=a/../b", "1", "Exact", int64(500), "/../"+other+"/a", int64(-1))
	f.Fuzz(func(t *testing.T, label, field, version, match string, limit int64, start string, revision int64) {
		opts := &metav1.ListOptions{
			LabelSelector: label, FieldSelector: field, ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatch(match), Limit: limit,
		}
		if start != "" {
			token, err := json.Marshal(map[string]any{"v": "meta.k8s.io/v1", "rv": revision, "start": start})
			if err != nil {
				t.Fatal(err)
			}
			opts.Continue = base64.RawURLEncoding.EncodeToString(token)
		}
		// A version in the future is waited for.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		list, _, err := s.endpoints.List(ctx, namespace, opts)
		if err != nil {
			checkBlamesClient(t, err, ctx.Err() != nil || version != "" || start != "")
			return
		}
		selector, err := labels.Parse(label)
		if err != nil {
			t.Fatalf("label selector %q was taken: %v", label, err)
		}
		if limit > 0 && int64(len(list.Objects)) > limit {
			t.Errorf("got %d objects, limit %d", len(list.Objects), limit)
		}
		for _, o := range list.Objects {
			if o.Namespace != namespace || !selector.Matches(o.Labels()) {
				t.Errorf("%+v listed %s/%s", opts, o.Namespace, o.Name)
			}
		}
	})
}

// Whatever a continue token is, it is taken, or refused.
func FuzzContinue(f *testing.F) {
	s := newStores(f, shared.store)
	namespace := s.newNamespace(f)
	f.Add("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiL2EifQ")
	f.Add("{}")
	f.Fuzz(func(t *testing.T, token string) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, _, err := s.endpoints.List(ctx, namespace, &metav1.ListOptions{Continue: token}); err != nil {
			checkBlamesClient(t, err, true)
		}
	})
}

// checkBlamesClient checks that an error is the client's fault, or that a version could not be
// had in time.
func checkBlamesClient(t *testing.T, err error, mayTimeOut bool) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatalf("got %T %v, want a Status", err, err)
	}
	switch code := status.Status().Code; {
	case code == http.StatusBadRequest, code == http.StatusUnprocessableEntity, code == http.StatusGone, code == http.StatusRequestEntityTooLarge:
	case code == http.StatusGatewayTimeout && mayTimeOut:
	default:
		t.Errorf("got %d %v", code, err)
	}
	if strings.TrimSpace(err.Error()) == "" {
		t.Error("the error says nothing")
	}
}
