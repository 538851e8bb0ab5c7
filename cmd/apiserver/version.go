package main

import (
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	apiversion "k8s.io/apimachinery/pkg/version"
)

// version of the binary, set by the linker (-X main.version=v1.2.3). If it is empty, the
// version of the module is used, or "devel" if that is unknown, too.
var version string

// kubernetesVersion is the release whose API is served. Clients compare it with their own,
// so gitVersion begins with it. It must match k8s.io/api in go.mod.
const kubernetesVersion = "1.37.2"

// versionLine is what --version prints.
func versionLine() string {
	return "apiserver " + binaryVersion() + " (Kubernetes API v" + kubernetesVersion + ")\n"
}

// binaryVersion returns the version of the binary.
func binaryVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

var notInBuildMetadata = regexp.MustCompile(`[^0-9A-Za-z.-]+`)

// servedVersion returns the answer to /version. Clients parse gitVersion as a semantic
// version: the Kubernetes release, with the binary's version as build metadata.
func servedVersion() apiversion.Info {
	build := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			build[setting.Key] = setting.Value
		}
	}
	treeState := "clean"
	if build["vcs.modified"] == "true" {
		treeState = "dirty"
	}
	parts := strings.SplitN(kubernetesVersion, ".", 3)
	return apiversion.Info{
		Major:        parts[0],
		Minor:        parts[1],
		GitVersion:   "v" + kubernetesVersion + "+berth." + notInBuildMetadata.ReplaceAllString(binaryVersion(), "."),
		GitCommit:    build["vcs.revision"],
		GitTreeState: treeState,
		BuildDate:    build["vcs.time"],
		GoVersion:    runtime.Version(),
		Compiler:     runtime.Compiler,
		Platform:     runtime.GOOS + "/" + runtime.GOARCH,
	}
}
