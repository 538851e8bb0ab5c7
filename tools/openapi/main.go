// Command openapi writes the OpenAPI documents that the server embeds, about the resources of
// pkg/registry/resources. It is run by generate.sh.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/registry/resources"
	"github.com/berth-project/berth/pkg/registry/reviews"
	"github.com/berth-project/berth/pkg/server"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: openapi FOLDER")
		os.Exit(2) //nolint:forbidigo // main is where a process ends
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1) //nolint:forbidigo // main is where a process ends
	}
}

// run writes the documents to the folder, and removes those that are no longer generated.
func run(folder string) error {
	version, err := apiVersion()
	if err != nil {
		return err
	}
	documents, err := build(served(), version)
	if err != nil {
		return err
	}
	if err := removeOthers(folder, documents); err != nil {
		return err
	}
	for name, content := range documents {
		if err := write(filepath.Join(folder, name), content); err != nil {
			return err
		}
	}
	return nil
}

// served returns the resources that the server serves, by their groups and versions.
func served() []groupVersion {
	var described []metav1.APIResource
	returned := map[schema.GroupVersion]map[string]bool{}
	for _, resource := range resources.All() {
		var below []metav1.APIResource
		for _, subresource := range resource.Subresources {
			below = append(below, subresource.API)
		}
		described = append(described, server.Describe(resource.API, below)...)
		if gv := resource.GroupVersionKind().GroupVersion(); resource.ReturnDeleted {
			if returned[gv] == nil {
				returned[gv] = map[string]bool{}
			}
			returned[gv][resource.API.Name] = true
		}
	}
	var all []groupVersion
	for _, resource := range append(described, reviews.APIResources()...) {
		gv := schema.GroupVersion{Group: resource.Group, Version: resource.Version}
		i := slices.IndexFunc(all, func(known groupVersion) bool { return known.GroupVersion == gv })
		if i < 0 {
			i, all = len(all), append(all, groupVersion{GroupVersion: gv, returned: returned[gv]})
		}
		all[i].resources = append(all[i].resources, resource)
	}
	return all
}

// apiVersion returns the version of Kubernetes whose types are described.
func apiVersion() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, module := range info.Deps {
			if minor, ok := strings.CutPrefix(module.Version, "v0."); ok && module.Path == "k8s.io/api" {
				return "v1." + minor, nil
			}
		}
	}
	return "", errors.New("the version of k8s.io/api is not known")
}

func removeOthers(folder string, documents map[string][]byte) error {
	return filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		if _, ok := documents[filepath.ToSlash(name)]; ok {
			return nil
		}
		return os.Remove(path)
	})
}

// write compresses content into a file. A file that already has that content is left alone,
// since compressors differ between Go releases.
func write(path string, content []byte) error {
	if old, err := read(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	var compressed bytes.Buffer
	w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, compressed.Bytes(), 0o644) //nolint:gosec // a source file, for all to read
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
