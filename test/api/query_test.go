package api

import (
	"net/http"
	"testing"
)

// The error of a parameter that cannot be read names it.
func TestUnreadableParameters(t *testing.T) {
	ns := newNamespace(t, shared)
	for query, name := range map[string]string{
		"limit=many":                      "limit",
		"limit=5&timeoutSeconds=soon":     "timeoutSeconds",
		"watch=true&timeoutSeconds=later": "timeoutSeconds",
		"timeout=never":                   "timeout",
	} {
		a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, endpointsPath(ns, "")+"?"+query, nil))
		checkCode(t, a, 400, "invalid "+name+" specified in the request URL")
	}
	a := send(t, shared.Client, newRequest(t, shared, http.MethodDelete, endpointsPath(ns, "x")+"?gracePeriodSeconds=abc", nil))
	checkCode(t, a, 400, "invalid gracePeriodSeconds specified in the request URL")
}
