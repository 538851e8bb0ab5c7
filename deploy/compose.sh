#!/usr/bin/env bash
# Runs Docker Compose: the plugin if it is installed, otherwise docker-compose.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if docker compose version >/dev/null 2>&1; then
	exec docker compose "$@"
fi
exec docker-compose "$@"
