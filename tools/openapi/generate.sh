#!/usr/bin/env bash
# Generates the OpenAPI documents of the resources in pkg/registry/resources. Kubernetes' own
# generator derives the schemas from the types' source; the paths come from the resources.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The API types that resources use, and everything they are made of.
mapfile -t uses < <(go list -f '{{join .Imports "\n"}}' ./pkg/registry/resources/... ./pkg/registry/reviews | grep '^k8s.io/api/' | sort -u)
mapfile -t packages < <(go list -deps "${uses[@]}" k8s.io/apimachinery/pkg/version | grep -E '^k8s.io/(api|apimachinery)/')

# The schemas of all these types are too large to keep in the repository. They replace
# definitions.go while the documents are generated.
generator=$(go list -m -f '{{.Path}}/cmd/openapi-gen@{{.Version}}' k8s.io/kube-openapi)
go run "$generator" --output-dir "$work" --output-pkg main --output-file definitions.go \
	--go-header-file /dev/null --report-filename /dev/null "${packages[@]}"
printf '{"Replace": {"%s": "%s"}}' "$PWD/tools/openapi/definitions.go" "$work/definitions.go" >"$work/overlay.json"
go run -overlay "$work/overlay.json" ./tools/openapi pkg/registry/resources/openapi
