package api

import (
	"bytes"
	"net/http"
	"testing"
)

// The server makes Services without an address headless, but whoever has not asked for that may
// change the type as in a cluster, where they would have an address.
func TestServiceChangesItsType(t *testing.T) {
	v := newViews(t, shared)
	const ports = `"ports":[{"port":80}]`
	v.do(http.MethodPut, "services", "plain", `{"metadata":{"name":"plain"},"spec":{`+ports+`}}`, http.StatusCreated, `"clusterIP":"None"`)
	a := v.do(http.MethodPatch, "services", "plain", `{"spec":{"type":"NodePort"}}`, http.StatusOK, `"ipFamilyPolicy":"SingleStack"`)
	if bytes.Contains(a.body, []byte(`"clusterIP"`)) {
		t.Errorf("the Service has kept its clusterIP: %s", a.body)
	}
	v.do(http.MethodPatch, "services", "plain", `{"spec":{"type":"ClusterIP"}}`, http.StatusOK, `"clusterIP":"None"`)
	v.do(http.MethodPut, "services", "plain", `{"metadata":{"name":"plain"},"spec":{"type":"LoadBalancer",`+ports+`}}`, http.StatusOK, `"type":"LoadBalancer"`)

	v.do(http.MethodPut, "services", "headless", `{"metadata":{"name":"headless"},"spec":{"clusterIP":"None",`+ports+`}}`, http.StatusCreated, "")
	v.do(http.MethodPatch, "services", "headless", `{"spec":{"type":"NodePort"}}`, http.StatusUnprocessableEntity, "may not be set to 'None' for NodePort services")
}
