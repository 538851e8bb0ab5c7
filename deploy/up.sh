#!/usr/bin/env bash
# Starts the services of docker-compose.yml, or of the files that COMPOSE_FILE names, waits
# until the server is healthy, or the proxy in front of several, and copies token, CA and
# kubeconfig into a directory (default ./compose.data):
#
#   deploy/up.sh [DIRECTORY]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${1:-compose.data}
compose=deploy/compose.sh

# Who answers the clients, and the volume with what they need.
front=apiserver holder=apiserver source=/data
if $compose config --services | grep -qx haproxy; then
	front=haproxy holder=apiserver-1 source=/cluster
fi

$compose up -d --build

container=$($compose ps -q $front)
for ((waited = 0; ; waited++)); do
	health=$(docker inspect --format '{{.State.Health.Status}}' "$container")
	[ "$health" = healthy ] && break
	if [ "$waited" = 120 ]; then
		$compose logs --no-color --tail 50 >&2
		echo "$front is $health after two minutes; its log is above" >&2
		exit 1
	fi
	sleep 1
done

# Only what a client needs: the CA's key stays in the volume.
mkdir -p "$data/pki"
container=$($compose ps -q $holder)
for file in token kubeconfig pki/ca.crt; do
	docker cp "$container:$source/$file" "$data/$file"
done

# The kubeconfig has the port inside the container; BERTH_PORT may have mapped another.
address=$($compose port $front 6443)
sed -i.inside "s|server: https://.*|server: https://$address|" "$data/kubeconfig"
rm "$data/kubeconfig.inside"

cat <<END
The server listens on https://$address. A first call:

  curl --cacert $data/pki/ca.crt -H "X-Auth-Token: \$(cat $data/token)" https://$address/api/v1/namespaces/default/endpoints
END
