#!/usr/bin/env bash
# make bench: installs the reference servers, builds, and runs every benchmark; results go to docs/benchmarks.md.
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$root"
[ "$(id -u)" = 0 ] || die "the benchmarks must run as root (containers, network namespaces): sudo make bench"
tools/setup.sh bench
tools/build.sh
exec deno task bench "$@"
