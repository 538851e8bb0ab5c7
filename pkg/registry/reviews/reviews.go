// Package reviews answers questions about users and what they may do: the kinds of
// authentication.k8s.io and authorization.k8s.io, which are created and stored nowhere. Their rules
// and texts are kube-apiserver's.
package reviews

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/ownership"
)

// Config is what the answers are made of. Fields are required unless their comments say otherwise.
type Config struct {
	// Scheme knows the Go types, and TypeConverter their schemas.
	Scheme        *runtime.Scheme
	TypeConverter managedfields.TypeConverter
	// Authorizer decides on what is asked.
	Authorizer auth.Authorizer
	// Rules tells what a user may do; nil: everybody may do everything.
	Rules Rules
	// Authenticator knows the tokens.
	Authenticator auth.Authenticator
}

// Rules tells what a user may do.
type Rules interface {
	// RulesFor returns the rules that apply to the user in the namespace, and at the cluster
	// scope; incomplete says that there are too many to return them all. The error says of which
	// there is no telling; the rules are the others.
	RulesFor(user *auth.User, namespace string) (rules []rbacv1.PolicyRule, incomplete bool, err error)
}

// review is what objects of Go's types of all kinds have.
type review interface {
	runtime.Object
	metav1.Object
}

// kind is one kind of review.
type kind struct {
	api metav1.APIResource
	new func() review
	// answer replaces what is asked by the answer.
	answer func(ctx context.Context, cfg *Config, namespace string, asked review) error
	// owned says that the answer tells who set the fields of the question.
	owned bool
}

func kinds() []kind {
	authentication := func(name, singular, kind string) metav1.APIResource {
		return metav1.APIResource{Group: authenticationv1.GroupName, Version: "v1", Kind: kind, Name: name, SingularName: singular, Verbs: metav1.Verbs{"create"}}
	}
	authorization := func(name, singular, kind string) metav1.APIResource {
		return metav1.APIResource{Group: authorizationv1.GroupName, Version: "v1", Kind: kind, Name: name, SingularName: singular, Verbs: metav1.Verbs{"create"}}
	}
	local := authorization("localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview")
	local.Namespaced = true
	return []kind{
		{api: authentication("selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview"), new: func() review { return &authenticationv1.SelfSubjectReview{} }, answer: answerSelfSubject},
		{api: authentication("tokenreviews", "tokenreview", "TokenReview"), new: func() review { return &authenticationv1.TokenReview{} }, answer: answerToken, owned: true},
		{api: local, new: func() review { return &authorizationv1.LocalSubjectAccessReview{} }, answer: answerLocalAccess, owned: true},
		{api: authorization("selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview"), new: func() review { return &authorizationv1.SelfSubjectAccessReview{} }, answer: answerSelfAccess, owned: true},
		{api: authorization("selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview"), new: func() review { return &authorizationv1.SelfSubjectRulesReview{} }, answer: answerSelfRules},
		{api: authorization("subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview"), new: func() review { return &authorizationv1.SubjectAccessReview{} }, answer: answerAccess, owned: true},
	}
}

// AddToScheme adds the Go types of the groups of reviews.
func AddToScheme(scheme *runtime.Scheme) error {
	return errors.Join(authenticationv1.AddToScheme(scheme), authorizationv1.AddToScheme(scheme))
}

// APIResources returns all kinds of reviews as discovery shows them.
func APIResources() []metav1.APIResource {
	var all []metav1.APIResource
	for _, one := range kinds() {
		all = append(all, one.api)
	}
	return all
}

// Review is one kind of review. It may be used by several goroutines at once.
type Review struct {
	kind
	cfg     *Config
	objects *object.Type
	owners  *ownership.Manager // nil: who set what is not told
}

// New returns all kinds of reviews.
func New(cfg Config) ([]*Review, error) {
	var all []*Review
	for _, one := range kinds() {
		gvk := schema.GroupVersionKind{Group: one.api.Group, Version: one.api.Version, Kind: one.api.Kind}
		r := &Review{kind: one, cfg: &cfg, objects: &object.Type{
			Kind: gvk, New: func() runtime.Object { return one.new() },
			Columns: []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}, {Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]}},
			Cells:   func(obj runtime.Object) []any { return []any{obj.(review).GetName(), object.Age} },
		}}
		if one.owned {
			var err error
			if r.owners, err = ownership.New(ownership.Config{Kind: gvk, Scheme: cfg.Scheme, Converter: cfg.TypeConverter}); err != nil {
				return nil, err
			}
		}
		all = append(all, r)
	}
	return all, nil
}

// APIResource describes the kind as discovery shows it.
func (r *Review) APIResource() metav1.APIResource { return r.api }

// Type is the type of the kind's objects.
func (r *Review) Type() *object.Type { return r.objects }

// Create answers a question, which becomes the answer. ctx has the user who asks; a dry run is no
// different. Errors: BadRequest and Invalid for what cannot be answered.
func (r *Review) Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (*object.Object, []string, error) {
	asked := obj.(review)
	if r.owners != nil {
		if err := r.owners.Update(r.new(), asked, opts.FieldManager); err != nil {
			return nil, nil, err
		}
	}
	if err := r.answer(ctx, r.cfg, namespace, asked); err != nil {
		return nil, nil, err
	}
	asked.GetObjectKind().SetGroupVersionKind(r.objects.Kind)
	value, err := r.objects.Encode(asked)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the answer: %w", err)
	}
	answer, err := object.Written(r.objects, object.Identity{Namespace: asked.GetNamespace(), Name: asked.GetName()}, value)
	return answer, nil, err
}
