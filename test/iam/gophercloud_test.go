package iam

import (
	"net/http"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

// alice is a member of team-a.
func alice(endpoint string) gophercloud.AuthOptions {
	return gophercloud.AuthOptions{
		IdentityEndpoint: endpoint, Username: "alice", Password: "alice-secret-1", DomainName: "Default",
		TenantName: "team-a", AllowReauth: true,
	}
}

// connect returns a client that has logged in.
func connect(t *testing.T, options gophercloud.AuthOptions) *gophercloud.ProviderClient {
	t.Helper()
	provider, err := openstack.NewClient(options.IdentityEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	provider.HTTPClient = httpClient(t)
	if err := openstack.Authenticate(t.Context(), provider, options); err != nil {
		t.Fatal(err)
	}
	return provider
}

// identityOf returns the service that the catalog has.
func identityOf(t *testing.T, provider *gophercloud.ProviderClient) *gophercloud.ServiceClient {
	t.Helper()
	service, err := openstack.NewIdentityV3(provider, gophercloud.EndpointOpts{Region: "RegionOne", Availability: gophercloud.AvailabilityPublic})
	if err != nil {
		t.Fatal(err)
	}
	return service
}

// use asks the Kubernetes API with the client's token, and returns the status.
func use(t *testing.T, provider *gophercloud.ProviderClient, path string) int {
	t.Helper()
	resp, err := provider.Request(t.Context(), http.MethodGet, shared.url+path, &gophercloud.RequestOpts{OkCodes: []int{200, 403}})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// Issue, validate, use and revoke, by the URL of the version and by that of the server.
func TestGophercloud(t *testing.T) {
	for name, endpoint := range map[string]string{"version": shared.url + "/v3", "version with a slash": shared.url + "/v3/", "server": shared.url} {
		t.Run(name, func(t *testing.T) {
			provider := connect(t, alice(endpoint))
			identity, token := identityOf(t, provider), provider.Token()

			got := tokens.Get(t.Context(), identity, token)
			user, err := got.ExtractUser()
			if err != nil || user.Name != "alice" || user.Domain.ID != "default" {
				t.Errorf("user %+v, %v", user, err)
			}
			if project, err := got.ExtractProject(); err != nil || project.Name != "team-a" {
				t.Errorf("project %+v, %v", project, err)
			}
			if roles, err := got.ExtractRoles(); err != nil || len(roles) != 2 {
				t.Errorf("roles %+v, %v", roles, err)
			}
			if catalog, err := got.ExtractServiceCatalog(); err != nil || len(catalog.Entries) != 1 {
				t.Errorf("catalog %+v, %v", catalog, err)
			}
			if ok, err := tokens.Validate(t.Context(), identity, token); !ok || err != nil {
				t.Errorf("validate: %v, %v", ok, err)
			}
			if ok, err := tokens.Validate(t.Context(), identity, "garbage"); ok || err != nil {
				t.Errorf("validate garbage: %v, %v", ok, err)
			}
			for path, want := range map[string]int{"/api/v1/namespaces/team-a/endpoints": 200, "/api/v1/namespaces/default/endpoints": 403, "/version": 200} {
				if got := use(t, provider, path); got != want {
					t.Errorf("%s: %d, want %d", path, got, want)
				}
			}
			pages, err := projects.ListAvailable(identity).AllPages(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if all, err := projects.ExtractProjects(pages); err != nil || len(all) != 3 {
				t.Errorf("projects %+v, %v", all, err)
			}

			// A dead token has the client log in again, once, and go on.
			if err := tokens.Revoke(t.Context(), identity, token).Err; err != nil {
				t.Fatal(err)
			}
			if got := use(t, provider, "/api/v1/namespaces/team-a/endpoints"); got != http.StatusOK {
				t.Errorf("after the revocation: %d", got)
			}
			if provider.Token() == token {
				t.Error("the client has the revoked token")
			}
			if ok, err := tokens.Validate(t.Context(), identity, token); ok || err != nil {
				t.Errorf("validate a revoked token: %v, %v", ok, err)
			}
		})
	}
}

// A token instead of a password: as it is, and for another project.
func TestGophercloudWithToken(t *testing.T) {
	token := connect(t, alice(shared.url+"/v3")).Token()
	same := connect(t, gophercloud.AuthOptions{IdentityEndpoint: shared.url + "/v3", TokenID: token})
	if same.Token() != token {
		t.Error("a token without a scope was exchanged")
	}
	other := connect(t, gophercloud.AuthOptions{IdentityEndpoint: shared.url + "/v3", TokenID: token, Scope: &gophercloud.AuthScope{ProjectName: "team-b", DomainName: "Default"}})
	for path, want := range map[string]int{"/api/v1/namespaces/team-a/endpoints": 403, "/api/v1/namespaces/team-b/endpoints": 200} {
		if got := use(t, other, path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestGophercloudRefused(t *testing.T) {
	for name, change := range map[string]func(*gophercloud.AuthOptions){
		"password": func(o *gophercloud.AuthOptions) { o.Password = "wrong" },
		"user":     func(o *gophercloud.AuthOptions) { o.Username = "nobody" },
		"project":  func(o *gophercloud.AuthOptions) { o.TenantName = "nowhere" },
		"domain":   func(o *gophercloud.AuthOptions) { o.DomainName = "Other" },
		"disabled": func(o *gophercloud.AuthOptions) { o.TenantName = "team-off" },
		"token of nobody": func(o *gophercloud.AuthOptions) {
			*o = gophercloud.AuthOptions{IdentityEndpoint: o.IdentityEndpoint, TokenID: "x"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			options := alice(shared.url + "/v3")
			change(&options)
			provider, err := openstack.NewClient(options.IdentityEndpoint)
			if err != nil {
				t.Fatal(err)
			}
			provider.HTTPClient = httpClient(t)
			err = openstack.Authenticate(t.Context(), provider, options)
			if !gophercloud.ResponseCodeIs(err, http.StatusUnauthorized) {
				t.Errorf("error = %v, want a 401", err)
			}
		})
	}
}
