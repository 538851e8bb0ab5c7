// Command openapi writes the OpenAPI documents that the server embeds: it starts the
// server, discovers what it serves, and describes that. It is run by generate.sh.
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
	"strings"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/berth-project/berth/test/apitest"
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
	served, err := discoverServed()
	if err != nil {
		return err
	}
	version, err := apiVersion()
	if err != nil {
		return err
	}
	documents, err := build(served, version)
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

// discoverServed starts a server, asks it what it serves, and stops it.
func discoverServed() (_ []groupVersion, err error) {
	server, err := apitest.Start(apitest.Config{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	client, err := discovery.NewDiscoveryClientForConfig(&rest.Config{
		Host: server.URL, BearerToken: apitest.Token, TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	})
	if err != nil {
		return nil, err
	}
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		return nil, err
	}
	return groupVersions(lists)
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
