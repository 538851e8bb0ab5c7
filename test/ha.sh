#!/usr/bin/env bash
# Runs docker-compose.ha.yml as a user would: up, the same token at each server, what one has written
# at all of them, the failures of deploy/failover.sh, down. It uses a project name, a port and
# addresses of its own, and leaves nothing behind. Without a Docker engine, Compose or HAProxy it says
# so and succeeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! timeout 20 docker info >/dev/null 2>&1; then
	echo "skipped: there is no Docker engine"
	exit 0
fi
if ! deploy/compose.sh version >/dev/null 2>&1; then
	echo "skipped: Docker Compose is not installed"
	exit 0
fi

export COMPOSE_PROJECT_NAME=berth-ha-test-$$ COMPOSE_FILE=docker-compose.ha.yml BERTH_PORT=0
export BERTH_NETWORK=172.31.$(($$ % 250))
data=$(mktemp -d)
# shellcheck disable=SC2317,SC2329 # called by the trap
cleanup() {
	status=$?
	if [ $status -ne 0 ]; then
		timeout 20 deploy/compose.sh logs --no-color --tail 40 || true
	fi
	timeout 180 deploy/compose.sh down --volumes --rmi local --remove-orphans --timeout 10 >/dev/null 2>&1 || status=1
	timeout 120 test/images.sh remove || status=1
	rm -rf "$data"
	exit $status
}
trap cleanup EXIT

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

status=0
timeout 600 test/images.sh ha || status=$?
if [ $status = 3 ]; then
	echo "skipped: docker-compose.ha.yml"
	exit 0
fi
[ $status = 0 ] || fail "the image of HAProxy"
timeout 600 test/images.sh
timeout 900 deploy/up.sh "$data" >"$data/up.log" 2>&1 || { cat "$data/up.log" && fail "up"; }
tail -n 3 "$data/up.log"

call() { # HOST:PORT:ADDRESS PATH [CURL ARGUMENT...]: prints the status
	local target=$1 path=$2
	shift 2
	curl -sS --max-time 10 --cacert "$data/pki/ca.crt" --resolve "$target" -o /dev/null -w '%{http_code}' \
		-H "X-Auth-Token: $(cat "$data/token")" -H 'Content-Type: application/json' "$@" "https://${target%:*}$path"
}

endpoints=/api/v1/namespaces/default/endpoints
port=$(deploy/compose.sh port haproxy 6443)
got=$(call "haproxy:${port##*:}:127.0.0.1" $endpoints -d '{"metadata": {"name": "shared"}}')
[ "$got" = 201 ] || fail "POST through the proxy answered $got"
for service in apiserver-1 apiserver-2 apiserver-3; do
	address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(deploy/compose.sh ps -q $service)")
	got=$(call "$service:6443:$address" $endpoints/shared)
	[ "$got" = 200 ] || fail "GET at $service answered $got"
done
echo "the same token and object at three servers"

FAILOVER_SECONDS=5 FAILOVER_MAX_GAP=30 timeout 500 deploy/failover.sh "$data" || fail "failover"
