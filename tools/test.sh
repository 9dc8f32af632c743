#!/usr/bin/env bash
# make test: installs what is missing, runs every check and every test, and ends with a line "N passed, N failed".
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$root"
[ "$(id -u)" = 0 ] || die "the tests must run as root (containers, network namespaces): sudo make test"
tools/setup.sh test

passed=0 failed=0
log=$(mktemp)
interop_log=$(mktemp)
interop=""
trap '[ -z "$interop" ] || kill -- "-$interop" 2>/dev/null || true; rm -f "$log" "$interop_log"' EXIT

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

# Adds deno test's own counts, read from a log; a run that ends without them has failed as a whole.
count() {
  local what=$1 status=$2 from=$3 counts
  counts=$(sed -n 's/.*| *\([0-9]*\) passed.*| *\([0-9]*\) failed.*/\1 \2/p' "$from" | tail -n 1)
  [ -n "$counts" ] || counts="0 1"
  passed=$((passed + ${counts% *}))
  failed=$((failed + ${counts#* }))
  if [ "$status" != 0 ] && [ "${counts#* }" = 0 ]; then
    failed=$((failed + 1))
    echo "FAILED: $what" >&2
  fi
}

tests() {
  local what=$1 status=0
  shift
  NO_COLOR=1 deno test -A --quiet "$@" 2>&1 | tee "$log" || status=$?
  count "$what" "$status" "$log"
}

check "formatting (deno fmt)" deno fmt --check --quiet
check "lint (deno lint)" deno lint --quiet
check "types (deno check)" deno check --quiet .
check "generated code (deno task gen)" tools/gen.sh --check
# Gossip with real Serf agents mostly waits (two minutes for a partition alone), so it runs beside everything else.
# In a process group of its own, so that an early end takes its agents along.
NO_COLOR=1 DENO_JOBS=4 setsid deno test -A --quiet --parallel tests/interop >"$interop_log" 2>&1 &
interop=$!
tests "unit and contract tests" --doc --parallel --ignore='**/*_e2e_test.ts,tests/interop,.tools,build'
mapfile -t e2e < <(git ls-files -co --exclude-standard "*_e2e_test.ts" ":!tests/interop")
tests "end-to-end tests" "${e2e[@]}"
status=0
wait "$interop" || status=$?
interop=""
cat "$interop_log"
count "tests with Serf agents" "$status" "$interop_log"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
