#!/usr/bin/env bash
# Makes the archive of this machine's platform twice, which must give the same bytes, and looks
# at what is in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

version=v0.0.0-test
PLATFORMS=linux/$(go env GOARCH)
export PLATFORMS
mkdir "$work/second"
touch "$work/second/mine" "$work/second/berth-v0.0.0-old-linux-amd64.tar.gz"
for run in first second; do
	deploy/dist.sh $version "$work/$run"
done
[[ -e $work/second/mine ]] || fail "another file in the directory is gone"
[[ ! -e $work/second/berth-v0.0.0-old-linux-amd64.tar.gz ]] || fail "an archive of another version is left"
diff "$work/first/SHA256SUMS" "$work/second/SHA256SUMS" || fail "two archives of the same commit differ"
(cd "$work/first" && sha256sum --check --quiet SHA256SUMS && tar -xzf berth-$version-linux-*.tar.gz)

root=$(echo "$work"/first/berth-$version-linux-*/)
for binary in apiserver loadtest; do
	"$root/$binary" --version | grep -qF $version || fail "$binary --version does not print $version"
	go version -m "$root/$binary" | grep -q 'CGO_ENABLED=0' || fail "$binary is not static"
	grep -q '"bomFormat": "CycloneDX"' "$root/$binary.cdx.json" || fail "$binary.cdx.json is no bill of materials"
	# Every module in the binary is in it, and Go itself.
	go version -m "$root/$binary" | awk '$1 == "dep" { print $2 "@" $3 }' | while read -r module; do
		grep -qF "pkg:golang/$module" "$root/$binary.cdx.json" || fail "$binary.cdx.json lacks $module"
	done
	grep -q '"name": "std"' "$root/$binary.cdx.json" || fail "$binary.cdx.json lacks Go's library"
done
bash -n "$root/completion/apiserver.bash"
for file in deploy/systemd/berth.service deploy/nginx/berth.conf deploy/haproxy/haproxy.cfg docs/operations/install.md; do
	cmp "$file" "$root/$file" || fail "$file is missing or another one"
done
echo "berth-$version-${PLATFORMS/\//-}.tar.gz: twice the same"
