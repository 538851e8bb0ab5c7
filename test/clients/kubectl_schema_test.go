package clients

import (
	"path/filepath"
	"testing"
)

func TestKubectlExplain(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.run("explain", "endpoints").contains("KIND: Endpoints\nVERSION: v1", "DESCRIPTION:\nEndpoints is a collection of endpoints that implement the actual service.", "FIELDS:\napiVersion <string>", "metadata <ObjectMeta>", "subsets <[]EndpointSubset>")
	k.run("explain", "ep.subsets.addresses.ip").contains("KIND: Endpoints\nVERSION: v1", "FIELD: ip <string>")
	k.run("explain", "namespaces.spec", "--recursive").contains("KIND: Namespace\nVERSION: v1", "FIELD: spec <NamespaceSpec>", "finalizers <[]string>")
	k.run("explain", "endpoints.nothing").ended(1, "KIND: Endpoints\nVERSION: v1", `error: field "nothing" does not exist`)
	k.run("explain", "nothings").fails(`the server doesn't have a resource type "nothings"`)
}

func TestKubectlDiscovery(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	k.env = append(k.env, "KUBECACHEDIR="+filepath.Join(t.TempDir(), "cold"))
	k.run("api-resources", "--no-headers").contains("endpoints ep v1 true Endpoints\nevents ev v1 true Event\nnamespaces ns v1 false Namespace\nnodes no v1 false Node\npods po v1 true Pod\nservices svc v1 true Service")
	k.run("api-resources", "--namespaced=true", "--verbs=deletecollection,watch", "-o", "name").contains("endpoints")
	k.run("api-resources", "-o", "wide", "--no-headers", "--api-group=").contains("endpoints ep v1 true Endpoints create,delete,deletecollection,get,list,patch,update,watch")
	k.run("api-versions").contains("v1")
	k.run("version").contains("Server Version: v1.37.2")
	k.run("get", "--raw", "/readyz").ok("ok")
	k.run("get", "--raw", "/nothing").fails("Error from server (NotFound): the server could not find the requested resource")
}
