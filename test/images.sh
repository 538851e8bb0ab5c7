#!/usr/bin/env bash
# Makes the base images of deploy/Dockerfile and docker-compose.yml available: from the
# engine, from their registry, or, where neither has them, as local stand-ins under the
# same names, put together from this machine's Go toolchain and the Go module proxy.
#
#   test/images.sh             provide the images
#   test/images.sh consumers   provide those of docker-compose.consumers.yml, or exit with
#                              status 3: stand-ins are made of what `make consumers` has built
#   test/images.sh ha          provide that of docker-compose.ha.yml besides etcd's, or exit with
#                              status 3: its stand-in is made of the haproxy of this machine
#   test/images.sh remove      remove the stand-ins and what was built on them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

label=berth.stand-in
# As the Dockerfile builds.
export CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath"
golang=$(sed -n 's/^FROM \(golang:[^ ]*\).*/\1/p' deploy/Dockerfile)
etcd=$(sed -n 's/^ *image: \(.*\/etcd:.*\)/\1/p' docker-compose.yml)
prometheus=$(sed -n 's/^ *image: \(prom\/.*\)/\1/p' docker-compose.consumers.yml)
coredns=$(sed -n 's/^ *image: \(coredns\/.*\)/\1/p' docker-compose.consumers.yml)
haproxy=$(sed -n 's/^ *image: \(haproxy:.*\)/\1/p' docker-compose.ha.yml)

if [ "${1:-}" = remove ]; then
	# A build that failed leaves its last container.
	docker ps -aq --filter "label=$label" | xargs -r docker rm -f >/dev/null
	for image in "$golang" "$etcd" "$prometheus" "$coredns" "$haproxy"; do
		if [ -n "$(docker images -q --filter "label=$label" "$image")" ]; then
			docker rmi -f "$image" >/dev/null
		fi
	done
	docker image prune -f --filter "label=$label" >/dev/null
	exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

available() { # IMAGE: is it there already, or can it be pulled?
	docker image inspect "$1" >/dev/null 2>&1 || timeout 300 docker pull -q "$1" >/dev/null 2>&1
}

with_libraries() { # ROOT PROGRAM...: copies programs and the libraries that they load
	local root=$1 program
	shift
	for program in "$@"; do
		cp --parents --dereference "$program" "$root"
		ldd "$program" | { grep -o '/[^ ]*' || true; } | while read -r library; do
			cp --parents --dereference "$library" "$root"
		done
	done
}

# The Go toolchain, a shell and mkdir for RUN, the project's modules, and what the
# toolchain has compiled of them: the build needs no network and no second compilation.
golang_stand_in() {
	local root=$work/golang
	mkdir -p "$root"/{bin,tmp,usr/local/go,go/pkg/mod,root/.cache/go-build}
	tar -C "$(go env GOROOT)" --dereference --exclude=testdata -c bin go.env lib pkg src VERSION |
		tar -C "$root/usr/local/go" -x
	with_libraries "$root" /bin/sh /bin/mkdir

	local modules cache
	modules=$(go env GOMODCACHE)
	go mod download -json |
		sed -En "s#^.*\"(Info|GoMod|Zip|Dir)\": \"$modules/(.*)\".*#\2#p" |
		sed 's|^.*\.zip$|&\n&hash|' >"$work/modules"
	(cd "$modules" && find cache/download -name '*.mod') >>"$work/modules"
	tar -C "$modules" -c --files-from "$work/modules" | tar -C "$root/go/pkg/mod" -x

	cache=$(go env GOCACHE)
	go list -export -deps -f '{{.Export}}' ./cmd/apiserver | sed -n "s|^$cache/||p" >"$work/outputs"
	sed 's|.*/||; s|-d$||' "$work/outputs" >"$work/hashes"
	(cd "$cache" && grep -rlFf "$work/hashes" --include='*-a' .) >>"$work/outputs"
	tar -C "$cache" -c --files-from "$work/outputs" | tar -C "$root/root/.cache/go-build" -x

	tar -C "$root" -c . | docker import \
		--change "LABEL $label=true" \
		--change 'ENV PATH=/usr/local/go/bin:/bin HOME=/root GOPATH=/go GOTOOLCHAIN=local' \
		--change "ENV GOPROXY=$(go env GOPROXY)" \
		- "$golang" >/dev/null
}

# etcd and etcdctl with the dependencies that go.mod chooses: most are compiled already.
etcd_stand_in() {
	local root=$work/etcd version=${etcd##*:}
	mkdir -p "$work/module" "$root/usr/local/bin" "$root/var/lib/etcd" "$root/tmp"
	cp go.mod go.sum "$work/module"
	(
		cd "$work/module"
		go get "go.etcd.io/etcd/server/v3@$version" "go.etcd.io/etcd/etcdctl/v3@$version" 2>"$work/log" ||
			{ cat "$work/log" >&2 && exit 1; }
		go build -o "$root/usr/local/bin/etcd" go.etcd.io/etcd/server/v3
		go build -o "$root/usr/local/bin/etcdctl" go.etcd.io/etcd/etcdctl/v3
	)
	tar -C "$root" -c . | docker import \
		--change "LABEL $label=true" \
		--change 'ENV PATH=/usr/local/bin' \
		--change 'WORKDIR /var/lib/etcd' \
		--change 'CMD ["/usr/local/bin/etcd"]' \
		- "$etcd" >/dev/null
}

program_stand_in() { # IMAGE PROGRAM: an image that runs a program of the tests' module
	local root=$work/${2%%-*}
	mkdir -p "$root/bin" "$root/etc" "$root/tmp"
	cp "bin/consumers/$2" "$root/bin/program"
	tar -C "$root" -c . | docker import \
		--change "LABEL $label=true" \
		--change 'ENTRYPOINT ["/bin/program"]' \
		- "$1" >/dev/null
}

if [ "${1:-}" = consumers ]; then
	# Prometheus 3.16.0 is its Go module's v0.316.0.
	for stand_in in "$prometheus $(sed -E 's/.*:v3\.([0-9]+)\./prometheus-v0.3\1./' <<<"$prometheus")" "$coredns coredns-v${coredns##*:}"; do
		read -r image program <<<"$stand_in"
		if available "$image"; then
			echo "$image"
		elif [ -x "bin/consumers/$program" ]; then
			program_stand_in "$image" "$program"
			echo "$image: a stand-in of bin/consumers/$program"
		else
			echo "$image is not available, and \`make consumers\` has not built bin/consumers/$program"
			exit 3
		fi
	done
	exit 0
fi

# As Debian packages it, with the shell that health checks need.
haproxy_stand_in() {
	local root=$work/haproxy
	mkdir -p "$root"/{tmp,var,usr/local/etc/haproxy}
	with_libraries "$root" /bin/bash "$(command -v haproxy)"
	tar -C "$root" -c . | docker import \
		--change "LABEL $label=true" \
		--change 'ENV PATH=/usr/sbin:/usr/local/sbin:/usr/bin:/bin' \
		--change 'CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]' \
		- "$haproxy" >/dev/null
}

if [ "${1:-}" = ha ]; then
	PATH=$PATH:/usr/sbin
	if available "$haproxy"; then
		echo "$haproxy"
	elif command -v haproxy >/dev/null; then
		haproxy_stand_in
		echo "$haproxy: a stand-in of $(haproxy -v | head -n 1)"
	else
		echo "$haproxy is not available, and there is no haproxy on this machine"
		exit 3
	fi
	exit 0
fi

if available "$golang"; then
	echo "$golang"
else
	golang_stand_in
	echo "$golang: a stand-in from $(go version)"
fi
if available "$etcd"; then
	echo "$etcd"
else
	etcd_stand_in
	echo "$etcd: a stand-in from Go modules"
fi
