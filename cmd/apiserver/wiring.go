package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/endpoints"
	"github.com/berth-project/berth/pkg/registry/namespaces"
	"github.com/berth-project/berth/pkg/server"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// initialNamespaces exist from the first start on.
var initialNamespaces = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}

// core is everything behind the ports.
type core struct {
	handler http.Handler
	// endStreams ends the answers that would never end by themselves.
	endStreams func()
	// tasks work in the background until their context ends.
	tasks []func(context.Context)
	// failed delivers an error that the server cannot go on after; nil: it never does.
	failed <-chan error
	// close is called after everything else has ended.
	close func() error
}

// startCore opens the storage and puts registry and server on it. The schema of field
// ownership takes as long to build as etcd takes to start: they run side by side.
func startCore(ctx context.Context, c config, in *inputs, logger zerolog.Logger) (*core, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	var converter managedfields.TypeConverter
	var schema sync.WaitGroup
	schema.Go(func() { converter = registry.NewTypeConverter(scheme) })
	backend, err := openBackend(ctx, c, logger)
	schema.Wait()
	if err != nil {
		return nil, err
	}
	core, err := assemble(ctx, c, in, logger, backend, scheme, converter)
	if err != nil {
		return nil, errors.Join(err, backend.close())
	}
	return core, nil
}

// assemble builds the core on a backend and leaves the backend open when it fails.
func assemble(ctx context.Context, c config, in *inputs, logger zerolog.Logger, b *backend, scheme *runtime.Scheme, converter managedfields.TypeConverter) (*core, error) {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	store, err := etcd.New(b.client, etcd.Config{MaxValueBytes: b.maxValueBytes, Registerer: metrics})
	if err != nil {
		return nil, err
	}
	compactor, err := etcd.NewCompactor(b.client, etcd.CompactorConfig{Interval: c.EtcdCompactionInterval, Logger: logger})
	if err != nil {
		return nil, err
	}
	objects, err := registry.New(registry.Config{
		Storage: store, Scheme: scheme, TypeConverter: converter, Resources: []*registry.Resource{endpointsResource(), namespacesResource()},
	})
	if err != nil {
		return nil, err
	}
	if err := createNamespaces(ctx, objects.Stores()[1]); err != nil {
		return nil, err
	}
	handler, err := newServer(c, in, logger, metrics, scheme, store, objects)
	if err != nil {
		return nil, err
	}
	return &core{
		handler:    handler,
		endStreams: func() {},
		tasks: []func(context.Context){
			func(ctx context.Context) { _ = compactor.Run(ctx) }, // nil by its promise
			func(ctx context.Context) {
				objects.RunTerminator(ctx, func(err error) { logger.Error().Err(err).Msg("emptying a namespace failed") })
			},
		},
		failed: b.failed,
		close:  b.close,
	}, nil
}

func newServer(c config, in *inputs, logger zerolog.Logger, metrics *prometheus.Registry, scheme *runtime.Scheme, store storage.Interface, objects *registry.Registry) (*server.Server, error) {
	var resources []server.Resource
	for _, resource := range objects.Stores() {
		resources = append(resources, resource)
	}
	return server.New(server.Config{
		Resources: resources,
		Scheme:    scheme,
		Tokens:    in.tokens,
		Limiter:   in.limiter,
		Logger:    logger,
		Metrics:   metrics,
		Ready: func(ctx context.Context) error {
			_, err := store.Get(ctx, "/registry/health", storage.GetOptions{})
			return err
		},
		Version:                     servedVersion(),
		MaxRequestsInFlight:         c.MaxRequestsInFlight,
		MaxMutatingRequestsInFlight: c.MaxMutatingRequestsInFlight,
		RequestTimeout:              c.RequestTimeout,
	})
}

// newScheme knows the Go types of everything that is served.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return scheme, nil
}

func endpointsResource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Name: "endpoints", SingularName: "endpoints", Namespaced: true, Version: "v1", Kind: "Endpoints",
			ShortNames: []string{"ep"}, Verbs: metav1.Verbs{"create", "delete", "get", "list"},
		},
		New:      func() runtime.Object { return &corev1.Endpoints{} },
		NewList:  func() runtime.Object { return &corev1.EndpointsList{} },
		Strategy: endpoints.Strategy{},
	}
}

func namespacesResource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Name: "namespaces", SingularName: "namespace", Version: "v1", Kind: "Namespace",
			ShortNames: []string{"ns"}, Verbs: metav1.Verbs{"create", "delete", "get", "list"},
		},
		New:      func() runtime.Object { return &corev1.Namespace{} },
		NewList:  func() runtime.Object { return &corev1.NamespaceList{} },
		Strategy: namespaces.Strategy{},
	}
}

// createNamespaces makes the namespaces that must exist and do not.
func createNamespaces(ctx context.Context, store *registry.Store) error {
	for _, name := range initialNamespaces {
		_, err := store.Get(ctx, "", name, &metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			_, _, err = store.Create(ctx, "", namespace, &metav1.CreateOptions{FieldManager: "berth"})
		}
		// Another server on the same etcd may have come first.
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("cannot create the namespace %s: %w", name, err)
		}
	}
	return nil
}
