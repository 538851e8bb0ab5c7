#!/usr/bin/env bash
# Makes what a release consists of in a directory (default ./dist): for each platform an archive
# with the static binaries and a bill of materials of each (CycloneDX), and SHA256SUMS. The same
# commit, Go, tar and gzip give the same bytes.
#
#   [PLATFORMS='linux/amd64 linux/arm64'] deploy/dist.sh VERSION [DIRECTORY]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$1 dist=${2:-dist}
sbom=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

# Neither the time nor the machine may be in any file.
date=$(git log -1 --format=%cI)
export CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' GOAMD64=v1 GOARM64=v8.0 LC_ALL=C
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/completion" "$work/out"
go build -o "$work/native" -ldflags "-s -w -X main.version=$version" ./cmd/apiserver
for shell in bash zsh fish; do
	"$work/native" completion "$shell" >"$work/completion/apiserver.$shell"
done

for platform in ${PLATFORMS:-linux/amd64 linux/arm64}; do
	name=berth-$version-${platform/\//-}
	root=$work/$name
	mkdir "$root"
	GOOS=${platform%/*} GOARCH=${platform#*/} go build -ldflags "-s -w -X main.version=$version" -o "$root/" ./cmd/apiserver ./cmd/loadtest
	for binary in apiserver loadtest; do
		go run "$sbom" bin -json -std -noserial -notimestamp -version "$version" -output "$root/$binary.cdx.json" "$root/$binary"
	done
	cp -r "$work/completion" "$root"
	cp -r --parents deploy/systemd deploy/nginx deploy/haproxy deploy/coredns docs examples ./*.md LICENSE "$root"
	tar -C "$work" --sort=name --mtime="$date" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+w --format=ustar -c "$name" |
		gzip -9n >"$work/out/$name.tar.gz"
done
(cd "$work/out" && sha256sum -- * >SHA256SUMS)

mkdir -p "$dist"
rm -f -- "$dist"/berth-*.tar.gz "$dist/SHA256SUMS"
cp "$work/out/"* "$dist"
