package load

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
)

// leftover is a namespace in which there may be something of the run.
type leftover struct {
	namespace int  // its index
	created   bool // by the run, as far as is known
}

// namespaceNames returns the names of the namespaces that a load works in.
func namespaceNames(c *Config) []string {
	if c.Namespaces <= 1 {
		return []string{c.Namespace}
	}
	var names []string
	for i := range c.Namespaces {
		names = append(names, c.Namespace+"-"+strconv.Itoa(i+1))
	}
	return names
}

// OpenNamespaces creates the namespaces that do not exist yet. CleanUp is to be called also
// after an error.
func (g *Generator) OpenNamespaces(ctx context.Context) error {
	for i, name := range g.workload.namespaces {
		created, err := g.client.EnsureNamespace(ctx, name, runLabel, g.workload.run)
		if created || err == nil {
			g.mu.Lock()
			g.left = append(g.left, leftover{i, created})
			g.mu.Unlock()
		}
		if err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	return nil
}

// CleanUp deletes the namespaces that the run has created, which are known by its label, and
// its objects in the others. It does so also after ctx has ended, and goes on after an error,
// of which it returns the first.
func (g *Generator) CleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), setupTimeout)
	defer cancel()
	var first error
	var remaining []leftover
	for _, one := range g.left {
		if err := g.cleanUp(ctx, one.namespace); err != nil {
			first = cmp.Or(first, err)
			remaining = append(remaining, one)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = remaining
	return first
}

func (g *Generator) cleanUp(ctx context.Context, namespace int) error {
	w := g.workload
	n, err := g.client.Namespace(ctx, w.namespaces[namespace])
	if err != nil || n == nil {
		return err
	}
	path := w.paths[namespace] + "?labelSelector=" + runLabel + "%3D" + w.run
	var options []byte
	if n.Metadata.Labels[runLabel] == w.run {
		path = "/api/v1/namespaces/" + w.namespaces[namespace]
		options = []byte(`{"preconditions":{"uid":"` + n.Metadata.UID + `"}}`)
	}
	_, err = g.client.Call(ctx, http.MethodDelete, path, options)
	if client.HasCode(err, http.StatusNotFound) || options != nil && client.HasCode(err, http.StatusConflict) {
		return nil // it has gone meanwhile, and may be another one now
	}
	return err
}

// Left returns kubectl commands that delete what is left of the run, each without its start.
func (g *Generator) Left() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	selector := " -l " + runLabel + "=" + g.workload.run
	var commands []string
	created := false
	for _, one := range g.left {
		if one.created {
			created = true
		} else {
			commands = append(commands, "delete endpoints -n "+g.workload.namespaces[one.namespace]+selector)
		}
	}
	if created {
		commands = append(commands, "delete namespaces"+selector)
	}
	return commands
}
