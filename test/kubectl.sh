#!/usr/bin/env bash
# Runs the tests of kubectl in test/clients with kubectl of other releases, built from their Go
# modules. The release of test/clients itself is part of `go test`.
#
#   [RELEASES='v0.36.6 v0.35.10'] test/kubectl.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/clients"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for release in ${RELEASES:-v0.36.6 v0.35.10}; do
	mkdir "$work/$release"
	cat >"$work/$release/main.go" <<-'END'
		package main

		import (
			"k8s.io/component-base/cli"
			"k8s.io/component-base/version"
			"k8s.io/kubectl/pkg/cmd"
			cmdutil "k8s.io/kubectl/pkg/cmd/util"
		)

		func main() {
			cmdutil.CheckErr(version.SetDynamicVersion("v0.0.0-master"))
			if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
				cmdutil.CheckErr(err)
			}
		}
	END
	(
		cd "$work/$release"
		go mod init kubectl
		go get "k8s.io/kubectl@$release" "k8s.io/component-base@$release"
		go mod tidy
		go build -o kubectl .
	) >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
	echo "==> kubectl $release"
	BERTH_TEST_KUBECTL=$work/$release/kubectl go test -count=1 -run '^TestKubectl' ./...
done
