package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/endpoints"
	"github.com/berth-project/berth/pkg/registry/namespaces"
	"github.com/berth-project/berth/pkg/server"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// core is everything behind the ports.
type core struct {
	handler *server.Server
	// failed delivers an error that the server cannot go on after; nil: it never does.
	failed <-chan error
	// metrics is what /metrics shows.
	metrics *prometheus.Registry

	background *tasks
	backend    *backend
}

// close ends the work in the background and then the storage. It is called when requests
// are no longer served.
func (c *core) close() error {
	c.background.stop()
	return c.backend.close()
}

// startCore opens the storage and puts registry and server on it. After an error nothing is
// left running. ctx bounds the start alone.
func startCore(ctx context.Context, c config, in *inputs, logger zerolog.Logger) (*core, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	backend, err := openBackend(ctx, c, logger)
	if err != nil {
		return nil, err
	}
	core := &core{failed: backend.failed, metrics: prometheus.NewRegistry(), background: newTasks(), backend: backend}
	if err := core.assemble(ctx, c, in, logger, scheme); err != nil {
		return nil, errors.Join(err, core.close())
	}
	return core, nil
}

// assemble builds on an open backend what requests need, and starts the work in the
// background.
func (c *core) assemble(ctx context.Context, cfg config, in *inputs, logger zerolog.Logger, scheme *runtime.Scheme) error {
	metrics := c.metrics
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	store, err := etcd.New(c.backend.client, etcd.Config{
		MaxValueBytes: c.backend.maxValueBytes,
		Registerer:    metrics,
	})
	if err != nil {
		return err
	}
	compactor, err := etcd.NewCompactor(c.backend.client, etcd.CompactorConfig{Interval: cfg.EtcdCompactionInterval, Logger: logger})
	if err != nil {
		return err
	}
	objects, err := registry.New(registry.Config{
		Storage:        store,
		Scheme:         scheme,
		TypeConverter:  registry.NewTypeConverter(server.Schemas),
		MaxObjectBytes: cfg.MaxObjectBytes,
		Resources:      []*registry.Resource{namespaces.Resource(), endpoints.Resource()},
		Report:         func(err error) { logger.Error().Err(err).Msg("a fault in the background") },
		Registerer:     metrics,
	})
	if err != nil {
		return err
	}
	c.background.run(objects.Run)
	if err := objects.WaitReady(ctx); err != nil {
		return fmt.Errorf("cannot read the objects: %w", err)
	}
	if err := namespaces.EnsureAlways(ctx, objects.Stores()[0]); err != nil {
		return fmt.Errorf("cannot create the first namespaces: %w", err)
	}
	if c.handler, err = newServer(cfg, in, logger, metrics, scheme, store, objects); err != nil {
		return err
	}
	c.background.run(func(ctx context.Context) { _ = compactor.Run(ctx) }) // nil by its promise
	if len(cfg.EtcdServers) > 0 {
		c.background.run(func(ctx context.Context) { etcd.WatchVersions(ctx, c.backend.client, logger) })
	}
	return nil
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
