#!/usr/bin/env bash
# Builds the image and runs docker-compose.yml as a user would: up, the documented call,
# a restart, the same object again, down; then docker-compose.consumers.yml with it. It uses
# a project name and ports of its own, and leaves nothing behind. Without a Docker engine or
# Compose it says so and succeeds.
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

export COMPOSE_PROJECT_NAME=berth-test-$$ BERTH_PORT=0 PROMETHEUS_PORT=0 DNS_PORT=0
both=docker-compose.yml:docker-compose.consumers.yml
COMPOSE_FILE=$both deploy/compose.sh config >/dev/null
COMPOSE_FILE=docker-compose.ha.yml deploy/compose.sh config >/dev/null # test/ha.sh runs it
data=$(mktemp -d)
# shellcheck disable=SC2317,SC2329 # called by the trap
cleanup() {
	status=$?
	if [ $status -ne 0 ]; then
		timeout 20 deploy/compose.sh logs --no-color --tail 40 || true
	fi
	timeout 120 deploy/compose.sh down --volumes --rmi local --remove-orphans --timeout 10 >/dev/null 2>&1 || status=1
	timeout 120 test/images.sh remove || status=1
	rm -rf "$data"
	exit $status
}
trap cleanup EXIT

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

call() { # METHOD PATH [BODY]: prints the answer's body, then its status in a line of its own
	local address
	address=$(deploy/compose.sh port apiserver 6443)
	curl -sS --max-time 10 --cacert "$data/pki/ca.crt" -w '\n%{http_code}\n' -X "$1" \
		-H "X-Auth-Token: $(cat "$data/token")" -H 'Content-Type: application/json' \
		"https://$address$2" ${3:+-d "$3"}
}

uid() { sed -n '/"metadata"/,/"subsets"/s/.*"uid": *"\([^"]*\)".*/\1/p' | head -n 1; }

timeout 600 test/images.sh
timeout 900 deploy/up.sh "$data" >"$data/up.log" 2>&1 || { cat "$data/up.log" && fail "up"; }
tail -n 3 "$data/up.log"

container=$(deploy/compose.sh ps -q apiserver)
user=$(docker inspect --format '{{.Config.User}}' "$container")
[ "$user" = 65532:65532 ] || fail "the server runs as user '$user'"
docker exec "$container" /usr/local/bin/apiserver --version
grep -q "server: https://$(deploy/compose.sh port apiserver 6443)\$" "$data/kubeconfig" || fail "the kubeconfig names another address"

collection=/api/v1/namespaces/default/endpoints
created=$(call POST $collection '{
  "apiVersion": "v1",
  "kind": "Endpoints",
  "metadata": {"name": "test-endpoint"},
  "subsets": [{"addresses": [{"ip": "192.168.226.222"}], "ports": [{"name": "service0", "port": 80}]}]
}')
[ "$(tail -n 1 <<<"$created")" = 201 ] || fail "POST answered $created"
echo "POST $collection: 201"

timeout 120 deploy/compose.sh restart >/dev/null 2>&1
timeout 900 deploy/up.sh "$data" >"$data/up.log" 2>&1 || { cat "$data/up.log" && fail "up after the restart"; }
read_back=$(call GET $collection/test-endpoint)
[ "$(tail -n 1 <<<"$read_back")" = 200 ] || fail "GET after the restart answered $read_back"
want=$(uid <<<"$created") got=$(uid <<<"$read_back")
[ -n "$want" ] && [ "$got" = "$want" ] || fail "uid '$got' after the restart, '$want' before"
echo "GET $collection/test-endpoint after a restart: 200, the same object"

status=0
timeout 600 test/images.sh consumers || status=$?
if [ $status = 3 ]; then
	echo "skipped: docker-compose.consumers.yml"
	exit 0
fi
[ $status = 0 ] || fail "the images of docker-compose.consumers.yml"
export COMPOSE_FILE=$both
timeout 900 deploy/up.sh "$data" >"$data/up.log" 2>&1 || { cat "$data/up.log" && fail "up with docker-compose.consumers.yml"; }

post() { # PATH BODY
	local answer
	answer=$(call POST "$1" "$2")
	[ "$(tail -n 1 <<<"$answer")" = 201 ] || fail "POST $1 answered $answer"
}

cat >"$data/lookup.go" <<'END'
package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, os.Args[1])
	}}
	addresses, err := resolver.LookupNetIP(context.Background(), "ip4", os.Args[2])
	fmt.Println(addresses, err)
}
END

await() { # SECONDS TEXT COMMAND...: until the command prints the text
	local seconds=$1 text=$2 waited=0
	shift 2
	until "$@" 2>&1 | tee "$data/printed" | grep -qF "$text"; do
		[ "$waited" -lt "$seconds" ] || fail "'$*' did not print '$text' in $seconds s, but: $(cat "$data/printed")"
		sleep 1
		waited=$((waited + 1))
	done
}

# The service is Prometheus itself: nothing else may be scraped.
post /apis/rbac.authorization.k8s.io/v1/clusterrolebindings '{
  "metadata": {"name": "consumers"},
  "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
  "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "consumers"}]
}'
address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(deploy/compose.sh ps -q prometheus)")
post /api/v1/namespaces/default/services '{
  "metadata": {"name": "web"},
  "spec": {"clusterIP": "None", "ports": [{"name": "metrics", "port": 9090}]}
}'
post /api/v1/namespaces/default/endpoints '{
  "metadata": {"name": "web"},
  "subsets": [{"addresses": [{"ip": "'"$address"'", "hostname": "vm-1"}], "ports": [{"name": "metrics", "port": 9090}]}]
}'
go build -o "$data/lookup" "$data/lookup.go"
await 60 "$address" "$data/lookup" "$(deploy/compose.sh port --protocol=udp coredns 1053)" vm-1.web.default.svc.cluster.local
echo "vm-1.web.default.svc.cluster.local: $address"
targets=http://$(deploy/compose.sh port prometheus 9090)/api/v1/targets?state=active
await 60 "\"scrapeUrl\":\"http://$address:9090/metrics\"" curl -sS --max-time 10 "$targets"
await 60 "\"scrapeUrl\":\"https://apiserver:6443/metrics\",\"globalUrl\":\"https://apiserver:6443/metrics\",\"lastError\":\"\",\"lastScrape\":\"2" curl -sS --max-time 10 "$targets"
echo "Prometheus scrapes $address:9090 and apiserver:6443"
