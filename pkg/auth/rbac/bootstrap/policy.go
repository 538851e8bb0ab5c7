// Package bootstrap has the roles and bindings that a server begins with, and what becomes of
// them when they have been changed.
package bootstrap

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Manager is the field manager of the objects, by kube-apiserver's name for itself.
const Manager = "kube-apiserver"

const (
	bootstrapping = "kubernetes.io/bootstrapping"
	rbacDefaults  = "rbac-defaults"
	aggregateTo   = "rbac.authorization.k8s.io/aggregate-to-"
)

var (
	read      = []string{"get", "list", "watch"}
	write     = []string{"create", "delete", "deletecollection", "patch", "update"}
	readWrite = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
)

// ClusterRoles returns kube-apiserver's own roles of the whole server, except those for what
// runs pods, and Berth's. The caller may change them.
func ClusterRoles() []*rbacv1.ClusterRole {
	return slices.Concat(systemRoles(), userRoles())
}

// systemRoles are those that somebody is bound to, and those for clients.
func systemRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		clusterRole("cluster-admin",
			on([]string{"*"}, []string{"*"}, "*"),
			at([]string{"*"}, "*")),
		clusterRole("system:discovery",
			at([]string{"get"}, "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/")),
		clusterRole("system:public-info-viewer",
			at([]string{"get"}, "/healthz", "/livez", "/readyz", "/version", "/version/")),
		clusterRole("system:basic-user",
			on([]string{"create"}, []string{"authorization.k8s.io"}, "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
			on([]string{"create"}, []string{"authentication.k8s.io"}, "selfsubjectreviews")),
		clusterRole("system:monitoring",
			at([]string{"get"}, "/flagz", "/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*", "/statusz"),
			on([]string{"get"}, []string{""}, "nodes/metrics")),
		clusterRole("system:auth-delegator",
			on([]string{"create"}, []string{"authentication.k8s.io"}, "tokenreviews"),
			on([]string{"create"}, []string{"authorization.k8s.io"}, "subjectaccessreviews")),
		clusterRole("system:kube-aggregator",
			on(read, []string{""}, "endpoints", "services")),
		clusterRole("system:kube-dns",
			on([]string{"list", "watch"}, []string{""}, "endpoints", "services")),
		clusterRole("system:node-proxier",
			on([]string{"list", "watch"}, []string{""}, "endpoints", "services"),
			on(read, []string{""}, "nodes"),
			on([]string{"create", "patch", "update"}, []string{"", "events.k8s.io"}, "events"),
			on([]string{"list", "watch"}, []string{"discovery.k8s.io"}, "endpointslices")),
	}
}

// userRoles are those that are made to be given to users in a namespace: admin, edit and view,
// which the server puts together of others.
func userRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		aggregated("admin", "admin", ""),
		aggregated("edit", "edit", "admin"),
		aggregated("view", "view", "edit"),
		aggregating("admin", clusterRole("system:aggregate-to-admin",
			on([]string{"create"}, []string{"authorization.k8s.io"}, "localsubjectaccessreviews"),
			on(readWrite, []string{rbacv1.GroupName}, "rolebindings", "roles"))),
		aggregating("edit", aggregateToEdit()),
		aggregating("view", aggregateToView()),
		// kube-apiserver lets edit and admin read these alone, for reasons of pods
		// (CVE-2021-25740). Here they are what users are for.
		aggregating("edit", clusterRole("berth:aggregate-to-edit",
			on(write, []string{""}, "endpoints"),
			on(write, []string{"discovery.k8s.io"}, "endpointslices"))),
	}
}

func aggregateToEdit() *rbacv1.ClusterRole {
	return clusterRole("system:aggregate-to-edit",
		on(read, []string{""}, "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"),
		on([]string{"impersonate"}, []string{""}, "serviceaccounts"),
		on(write, []string{""}, "pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"),
		on([]string{"create"}, []string{""}, "pods/eviction"),
		on(write, []string{""}, "configmaps", "events", "persistentvolumeclaims", "replicationcontrollers", "replicationcontrollers/scale", "secrets", "serviceaccounts", "services", "services/proxy"),
		on([]string{"create"}, []string{""}, "serviceaccounts/token"),
		on(write, []string{"apps"}, "daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"),
		on(write, []string{"autoscaling"}, "horizontalpodautoscalers"),
		on(write, []string{"batch"}, "cronjobs", "jobs"),
		on(write, []string{"events.k8s.io"}, "events"),
		on(write, []string{"extensions"}, "daemonsets", "deployments", "deployments/rollback", "deployments/scale", "ingresses", "networkpolicies", "replicasets", "replicasets/scale", "replicationcontrollers/scale"),
		on(write, []string{"policy"}, "poddisruptionbudgets"),
		on(write, []string{"networking.k8s.io"}, "ingresses", "networkpolicies"),
		on(readWrite, []string{"coordination.k8s.io"}, "leases"))
}

func aggregateToView() *rbacv1.ClusterRole {
	return clusterRole("system:aggregate-to-view",
		on(read, []string{""}, "configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods", "replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services", "services/status"),
		on(read, []string{""}, "bindings", "events", "limitranges", "namespaces/status", "pods/log", "pods/status", "replicationcontrollers/status", "resourcequotas", "resourcequotas/status"),
		on(read, []string{""}, "namespaces"),
		on(read, []string{"discovery.k8s.io"}, "endpointslices"),
		on(read, []string{"apps"}, "controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale", "deployments/status", "replicasets", "replicasets/scale", "replicasets/status", "statefulsets", "statefulsets/scale", "statefulsets/status"),
		on(read, []string{"autoscaling"}, "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
		on(read, []string{"batch"}, "cronjobs", "cronjobs/status", "jobs", "jobs/status"),
		on(read, []string{"events.k8s.io"}, "events"),
		on(read, []string{"extensions"}, "daemonsets", "daemonsets/status", "deployments", "deployments/scale", "deployments/status", "ingresses", "ingresses/status", "networkpolicies", "replicasets", "replicasets/scale", "replicasets/status", "replicationcontrollers/scale"),
		on(read, []string{"policy"}, "poddisruptionbudgets", "poddisruptionbudgets/status"),
		on(read, []string{"networking.k8s.io"}, "ingresses", "ingresses/status", "networkpolicies"))
}

// ClusterRoleBindings returns kube-apiserver's own bindings to those of ClusterRoles that it
// gives to somebody. Each has the name of its role. The caller may change them.
func ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	group := func(name string) rbacv1.Subject {
		return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
	}
	return []*rbacv1.ClusterRoleBinding{
		clusterRoleBinding("cluster-admin", group("system:masters")),
		clusterRoleBinding("system:monitoring", group("system:monitoring")),
		clusterRoleBinding("system:discovery", group("system:authenticated")),
		clusterRoleBinding("system:basic-user", group("system:authenticated")),
		clusterRoleBinding("system:public-info-viewer", group("system:authenticated"), group("system:unauthenticated")),
		clusterRoleBinding("system:node-proxier", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:kube-proxy"}),
		clusterRoleBinding("system:kube-dns", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "kube-dns"}),
	}
}

func on(verbs, groups []string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: slices.Clone(verbs), APIGroups: groups, Resources: resources}
}

func at(verbs []string, paths ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: verbs, NonResourceURLs: paths}
}

// metadata is what all the objects have.
func metadata(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{bootstrapping: rbacDefaults},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metadata(name), Rules: rules}
}

// aggregating makes the role a part of another.
func aggregating(into string, role *rbacv1.ClusterRole) *rbacv1.ClusterRole {
	role.Labels[aggregateTo+into] = "true"
	return role
}

// aggregated is a role that is put together of those that aggregate into of, and perhaps a part
// of another itself.
func aggregated(name, of, into string) *rbacv1.ClusterRole {
	role := clusterRole(name)
	role.AggregationRule = &rbacv1.AggregationRule{
		ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{aggregateTo + of: "true"}}},
	}
	if into != "" {
		aggregating(into, role)
	}
	return role
}

func clusterRoleBinding(role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metadata(role),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   subjects,
	}
}
