#!/usr/bin/env bash
# Runs the generators of every module and fails, naming the files, if that changes any.
# `make fix-generated` keeps what they write.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

state() { # PATH and checksum of every file that is or could be committed
	git ls-files -z --cached --others --exclude-standard | xargs -0 sha256sum 2>/dev/null || true
}

if ! git rev-parse --git-dir >/dev/null 2>&1; then
	echo "skipped: this is no git repository"
	exit 0
fi
if ! git grep -qE '^//go:generate ' -- '*.go'; then
	echo "nothing is generated"
	exit 0
fi
before=$(state)
find . -name go.mod -not -path './.*' | while read -r module; do
	(cd "$(dirname "$module")" && go generate ./...)
done
if ! diff <(echo "$before") <(state); then
	echo "FAIL: generated files are out of date; they have been generated again" >&2
	exit 1
fi
