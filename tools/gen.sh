#!/usr/bin/env bash
# Generates proto/gen from the .proto files; --check fails when what is committed differs.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.tools/node_modules/.bin:$PATH"
if [ "${1:-}" = --check ]; then
  tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
  (cd proto && buf generate -o "$tmp")
  diff -r proto/gen "$tmp/gen" >/dev/null || { echo "proto/gen is not what the .proto files give: run 'deno task gen'" >&2; exit 1; }
else
  (cd proto && buf generate)
fi
