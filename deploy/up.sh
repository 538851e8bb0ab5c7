#!/usr/bin/env bash
# Starts the services of docker-compose.yml, waits until the server is healthy, and
# copies its token, CA and kubeconfig into a directory (default ./compose.data):
#
#   deploy/up.sh [DIRECTORY]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${1:-compose.data}
compose=deploy/compose.sh

$compose up -d --build

container=$($compose ps -q apiserver)
for ((waited = 0; ; waited++)); do
	health=$(docker inspect --format '{{.State.Health.Status}}' "$container")
	[ "$health" = healthy ] && break
	if [ "$waited" = 120 ]; then
		$compose logs --no-color --tail 50 >&2
		echo "the server is $health after two minutes; its log is above" >&2
		exit 1
	fi
	sleep 1
done

# Only what a client needs: the CA's key stays in the volume.
mkdir -p "$data/pki"
for file in token kubeconfig pki/ca.crt; do
	docker cp "$container:/data/$file" "$data/$file"
done

# The kubeconfig has the port inside the container; BERTH_PORT may have mapped another.
address=$($compose port apiserver 6443)
sed -i.inside "s|server: https://.*|server: https://$address|" "$data/kubeconfig"
rm "$data/kubeconfig.inside"

cat <<END
The server listens on https://$address. A first call:

  curl --cacert $data/pki/ca.crt -H "X-Auth-Token: \$(cat $data/token)" https://$address/api/v1/namespaces/default/endpoints
END
