#!/usr/bin/env bash
# Runs the end-to-end tests, or those given: tools/e2e.sh [FILE…]
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$root"
if [ $# = 0 ]; then mapfile -t files < <(git ls-files -co --exclude-standard '*_e2e_test.ts'); else files=("$@"); fi
exec deno test -A --quiet "${files[@]}"
