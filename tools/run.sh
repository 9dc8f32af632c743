#!/usr/bin/env bash
# Runs a task of deno.json with the tools it needs: tools/run.sh TASK [ARGUMENT…]
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$root"
tools/setup.sh test
exec deno task "$@"
