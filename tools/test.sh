#!/usr/bin/env bash
# make test: installs what is missing, runs every check and every test, and ends with what failed and a line "N passed, N failed".
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$root"
[ "$(id -u)" = 0 ] || die "the tests must run as root (containers, network namespaces): sudo make test"
tools/setup.sh test

passed=0 failed=0
logs=$(mktemp -d)
log=$logs/now
: >"$logs/failures"
declare -A beside=()
end() {
  local name
  for name in "${!beside[@]}"; do kill -- "-${beside[$name]}" 2>/dev/null || true; done
  rm -rf "$logs"
}
trap end EXIT

check() {
  local what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $what" >>"$logs/failures"
  fi
}

# Adds deno test's own counts, read from a log; a run that ends without them has failed as a whole.
count() {
  local what=$1 status=$2 from=$3 counts
  counts=$(sed -n 's/.*| *\([0-9]*\) passed.*| *\([0-9]*\) failed.*/\1 \2/p' "$from" | tail -n 1)
  [ -n "$counts" ] || counts="0 1"
  passed=$((passed + ${counts% *}))
  failed=$((failed + ${counts#* }))
  [ "$status" = 0 ] && return
  [ "${counts#* }" != 0 ] || failed=$((failed + 1))
  {
    echo "FAILED: $what"
    if grep -q '^ ERRORS $' "$from"; then sed -n '/^ ERRORS $/,$p' "$from"; else tail -n 50 "$from"; fi
  } >>"$logs/failures"
}

tests() {
  local what=$1 status=0
  shift
  NO_COLOR=1 deno test -A --quiet "$@" 2>&1 | tee "$log" || status=$?
  count "$what" "$status" "$log"
}

# Begins tests that mostly wait, beside others. In a process group of their own, so that an early end takes what they started along.
begin() {
  local name=$1
  shift
  NO_COLOR=1 DENO_JOBS=4 setsid deno test -A --quiet "$@" >"$logs/$name" 2>&1 &
  beside[$name]=$!
}

# Waits for what `begin` began, and shows it.
finish() {
  local name=$1 what=$2 status=0
  wait "${beside[$name]}" || status=$?
  unset "beside[$name]"
  cat "$logs/$name"
  count "$what" "$status" "$logs/$name"
}

check "formatting (deno fmt)" deno fmt --check --quiet
check "lint (deno lint)" deno lint --quiet
check "types (deno check)" deno check --quiet .
check "generated code (deno task gen)" tools/gen.sh --check
# Gossip with real Serf agents: two minutes for a partition alone.
begin interop --parallel tests/interop
tests "unit and contract tests" --doc --parallel --ignore='**/*_e2e_test.ts,tests/interop,.tools,build'
# Clusters of real agents, one after the other, wait for each other's silence; one node's tests go on meanwhile.
several=("tests/e2e/*cluster*_e2e_test.ts" tests/e2e/demo_e2e_test.ts)
mapfile -t clusters < <(git ls-files -co --exclude-standard "${several[@]}")
begin clusters "${clusters[@]}"
mapfile -t e2e < <(git ls-files -co --exclude-standard "*_e2e_test.ts" ":!tests/interop" "${several[@]/#/:!}")
tests "end-to-end tests" "${e2e[@]}"
finish clusters "tests of clusters"
finish interop "tests with Serf agents"

cat "$logs/failures"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
