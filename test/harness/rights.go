package harness

// SettleRights waits until a server decides by all roles and bindings that are stored: get reads
// a path of it as an administrator, and where it has listed them, its authorizer has them, too.
func SettleRights(get func(path string)) {
	for _, resource := range []string{"roles", "clusterroles", "rolebindings", "clusterrolebindings"} {
		get("/apis/rbac.authorization.k8s.io/v1/" + resource)
	}
}
