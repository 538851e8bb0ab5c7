#!/usr/bin/env bash
# Shows what failures cost the clients of the running docker-compose.ha.yml. Three clients write
# through the proxy, one object after the other, while it kills a server, the leader of etcd, and
# another member, and starts each again. It prints the longest time that no write was acknowledged,
# and that one write took. Then it looks for each acknowledged object, and deletes them all. It needs
# curl, and what `make up` has copied:
#
#   deploy/failover.sh [DIRECTORY]     default ./compose.data
#
# FAILOVER_SECONDS (10) is how long each failure lasts, and FAILOVER_MAX_GAP (15) the longest gap, in
# seconds, that it accepts. The exit status is 0 if every gap was shorter, nothing
# acknowledged was lost, and everything is healthy again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${1:-compose.data}
seconds=${FAILOVER_SECONDS:-10}
max_gap=${FAILOVER_MAX_GAP:-15}
export COMPOSE_FILE=${COMPOSE_FILE:-docker-compose.ha.yml}
compose=deploy/compose.sh
members="etcd-1 etcd-2 etcd-3"

for file in token kubeconfig pki/ca.crt; do
	[ -f "$data/$file" ] || { echo "there is no $data/$file: start with COMPOSE_FILE=$COMPOSE_FILE make up" >&2 && exit 2; }
done
server=$(sed -n 's/^ *server: //p' "$data/kubeconfig")
run=failover-$$-$(date +%s)
work=$(mktemp -d)
writers='' killed=''

# Compose is slow to ask.
$compose ps -q | xargs docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} {{.Id}}' >"$work/containers"
container() { awk -v service="$1" '$1 == service { print $2 }' "$work/containers"; }

heal() { # starts again what was killed, and waits until it is healthy
	local id waited=0
	[ -n "$killed" ] || return 0
	id=$(container "$killed")
	docker start "$id" >/dev/null
	until [ "$(docker inspect --format '{{.State.Health.Status}}' "$id")" = healthy ]; do
		[ "$waited" -lt 60 ] || { echo "$killed is not healthy after a minute" >&2 && return 1; }
		sleep 1
		waited=$((waited + 1))
	done
	killed=''
}

stop_writers() {
	# shellcheck disable=SC2086 # several
	[ -z "$writers" ] || { kill $writers && wait $writers || true; } 2>/dev/null
	writers=''
}

# shellcheck disable=SC2317,SC2329 # called by the trap
cleanup() {
	status=$?
	stop_writers
	heal || status=1
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Not in the arguments, which other users of the machine see.
(umask 077 && printf 'header = "X-Auth-Token: %s"\n' "$(cat "$data/token")" >"$work/curl.conf")

call() { # METHOD PATH [CURL ARGUMENT...]
	local method=$1 path=$2
	shift 2
	curl -sS --config "$work/curl.conf" --cacert "$data/pki/ca.crt" -X "$method" \
		-H 'Content-Type: application/json' "$@" "$server/api/v1/namespaces/$run$path"
}

# Writes until it is killed; each line of the file has when an answer came, in ms, its status, how long
# it took in seconds, and the object. Status 000 is no answer: the object may exist or not.
write() { # NAME
	local i answer
	for ((i = 0; ; i++)); do
		answer=$(call POST /endpoints --max-time 10 -o /dev/null -w '%{http_code} %{time_total}' 2>/dev/null \
			-d '{"metadata": {"name": "'"$1-$i"'"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]}') || true
		echo "$(now) $answer $1-$i" >>"$work/writes"
		# A refusal at once must not become a flood of them.
		[[ $answer = 201* ]] || sleep 0.1
	done
}

# Milliseconds; to the second where the shell is older than bash 5, as on macOS.
now() { local t=${EPOCHREALTIME:-$(date +%s).000000} && t=${t/[.,]/} && echo "${t%???}"; }

leader() { # the member that leads, by the first member that answers
	local member
	for member in $members; do
		docker exec "$(container "$member")" /usr/local/bin/etcdctl endpoint status --cluster --write-out=fields 2>/dev/null |
			awk -F ' : ' '$1 ~ /"MemberID"/ { id = $2 } $1 ~ /"Leader"/ { leads = (id == $2) }
				$1 ~ /"Endpoint"/ && leads { gsub(/"|https:\/\/|:.*/, "", $2); print $2 }' | grep . && return 0
	done
	echo "no member of etcd knows the leader" >&2
	return 1
}

follower() { # a member that does not lead
	local leading
	leading=$(leader)
	tr ' ' '\n' <<<"$members" | grep -vx "$leading" | tail -n 1
}

phase() { # WHAT SERVICE: kills the service, starts it again, and prints what the writes have noticed
	local begin
	begin=$(now)
	if [ "$2" != - ]; then
		killed=$2
		docker kill "$(container "$2")" >/dev/null
	fi
	sleep "$seconds"
	heal || failed=1
	# From the last acknowledged write before.
	awk -v begin="$begin" -v end="$(now)" -v name="$1" -v service="$2" -v max="$max_gap" '
		$1 < begin { if ($2 == 201) last = $1; next }
		$3 > slowest { slowest = $3 }
		$2 == 201 { acknowledged++; if (last && $1 - last > gap) gap = $1 - last; last = $1; next }
		{ failed++ }
		END {
			if (end - last > gap) gap = end - last
			printf "%-24s %-12s %12d %7d %11.1f s %11.1f s\n", name, service, acknowledged, failed, gap / 1000, slowest
			exit gap > max * 1000
		}' "$work/writes" || failed=1
}

await_write() {
	local waited=0
	until grep -q ' 201 ' "$work/writes" 2>/dev/null; do
		[ "$waited" -lt 30 ] || { echo "no write was acknowledged in 30 s: $(tail -n 1 "$work/writes")" >&2 && exit 1; }
		sleep 1
		waited=$((waited + 1))
	done
}

curl -sS --fail --max-time 10 --retry 5 --config "$work/curl.conf" --cacert "$data/pki/ca.crt" -o /dev/null \
	-H 'Content-Type: application/json' -d '{"metadata": {"name": "'"$run"'"}}' "$server/api/v1/namespaces"
for name in a b c; do
	write "$name" &
	writers="$writers $!"
done
await_write

failed=0
printf '%-24s %-12s %12s %7s %13s %13s\n' KILLED SERVICE ACKNOWLEDGED FAILED 'LONGEST GAP' 'SLOWEST WRITE'
phase nothing -
phase 'a server' apiserver-1
phase 'the leader of etcd' "$(leader)"
phase 'another member of etcd' "$(follower)"
stop_writers

# Every object of an acknowledged write must be there.
call GET /endpoints --max-time 60 --fail --retry 5 | grep -o '"name": *"[abc]-[0-9]*"' | grep -o '[abc]-[0-9]*' | sort >"$work/found"
awk '$2 == 201 { print $4 }' "$work/writes" | sort >"$work/acknowledged"
lost=$(comm -23 "$work/acknowledged" "$work/found" | wc -l)
echo "$(wc -l <"$work/acknowledged") writes were acknowledged, and $((lost)) of them lost; $(comm -13 "$work/acknowledged" "$work/found" | wc -l) were done although their answer was lost"
curl -sS --fail --max-time 10 --retry 5 --config "$work/curl.conf" --cacert "$data/pki/ca.crt" -o /dev/null -X DELETE "$server/api/v1/namespaces/$run"
[ "$lost" -eq 0 ] || failed=1
exit $failed
