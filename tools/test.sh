#!/usr/bin/env bash
# make test: installs what is missing, runs every check and every test, and ends with a line "N passed, N failed".
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$root"
[ "$(id -u)" = 0 ] || die "the tests must run as root (containers, network namespaces): sudo make test"
tools/setup.sh test

passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

check() {
  local what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $what" >&2
  fi
}

# Adds deno test's own counts; a run that ends without them has failed as a whole.
tests() {
  local what=$1 status=0 counts
  shift
  NO_COLOR=1 deno test -A --quiet "$@" 2>&1 | tee "$log" || status=$?
  counts=$(sed -n 's/.*| *\([0-9]*\) passed.*| *\([0-9]*\) failed.*/\1 \2/p' "$log" | tail -n 1)
  [ -n "$counts" ] || counts="0 1"
  passed=$((passed + ${counts% *}))
  failed=$((failed + ${counts#* }))
  if [ "$status" != 0 ] && [ "${counts#* }" = 0 ]; then
    failed=$((failed + 1))
    echo "FAILED: $what" >&2
  fi
}

check "formatting (deno fmt)" deno fmt --check --quiet
check "lint (deno lint)" deno lint --quiet
check "types (deno check)" deno check --quiet .
check "generated code (deno task gen)" tools/gen.sh --check
tests "unit and contract tests" --doc --parallel --ignore='**/*_e2e_test.ts,.tools,build'
mapfile -t e2e < <(git ls-files -co --exclude-standard "*_e2e_test.ts")
tests "end-to-end tests" "${e2e[@]}"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
