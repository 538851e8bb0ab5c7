#!/usr/bin/env bash
# Compose, whichever is installed: the engine's plugin or the older docker-compose.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if docker compose version >/dev/null 2>&1; then
	exec docker compose "$@"
fi
exec docker-compose "$@"
