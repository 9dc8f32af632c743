#!/usr/bin/env bash
# Installs what is missing: Debian packages (services kept from starting) and, into .tools, Deno and the proto tools.
# Usage: tools/setup.sh build|demo|test|bench …   Quiet and quick when nothing is missing.
set -euo pipefail
source "$(dirname "$0")/env.sh"

readonly NPM_TIMEOUT_SECONDS=600
readonly APT_LOCK_TIMEOUT_SECONDS=300

run_packages="containerd runc containernetworking-plugins iptables nftables iproute2 busybox-static umoci ca-certificates curl"
test_packages="$run_packages crun runsc docker-registry apache2-utils skopeo jq conntrack strace openssl serf procps util-linux"
bench_packages="$run_packages nginx-light haproxy caddy wrk"

packages="" need_deno=no need_proto=no
[ $# -gt 0 ] || die "usage: tools/setup.sh build|demo|test|bench …"
for group in "$@"; do
  need_deno=yes
  case $group in
    build) ;;
    demo) packages+=" $run_packages" ;;
    test) packages+=" $test_packages" need_proto=yes ;;
    bench) packages+=" $bench_packages" ;;
    *) die "unknown group '$group' (build, demo, test, bench)" ;;
  esac
done

work=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
policy_backup="" policy_ours=no
cleanup() {
  if [ "$policy_ours" = yes ]; then
    rm -f "$policy"
    if [ -n "$policy_backup" ]; then mv -f "$policy_backup" "$policy"; fi
  fi
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# Runs a command quietly; its output is shown only when it fails.
quietly() {
  local what=$1
  shift
  "$@" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    die "cannot $what"
  }
}

is_installed() { [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = "install ok installed" ]; }

install_packages() {
  local missing=() package
  for package in $packages; do
    case " ${missing[*]-} " in *" $package "*) continue ;; esac
    is_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "must run as root to install: ${missing[*]}"
  echo "installing ${missing[*]}"
  # A package's service must not start: the agent and the tests run their own.
  if [ -e "$policy" ]; then
    policy_backup=$(mktemp "$policy.XXXXXX")
    mv -f "$policy" "$policy_backup"
  fi
  policy_ours=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -qq -o "DPkg::Lock::Timeout=$APT_LOCK_TIMEOUT_SECONDS" -o Acquire::Retries=3)
  quietly "read Debian's package lists (no network?)" "${apt[@]}" update
  quietly "install ${missing[*]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
}

install_from_npm() {
  local wanted=() name version
  [ "$1" = deno ] || [ "$1" = proto ]
  if [ "$1" = deno ]; then wanted=("deno@$deno_version"); fi
  if [ "$1" = proto ]; then wanted=("@bufbuild/buf@$buf_version" "@bufbuild/protoc-gen-es@$protoc_gen_es_version"); fi
  command -v npm >/dev/null || die "npm is missing: apt-get install npm"
  echo "installing ${wanted[*]}"
  mkdir -p "$root/.tools"
  [ -f "$root/.tools/package.json" ] || echo '{ "private": true }' >"$root/.tools/package.json"
  quietly "install ${wanted[*]} from npm (no network?)" timeout "$NPM_TIMEOUT_SECONDS" npm install \
    --prefix "$root/.tools" --no-audit --no-fund --no-update-notifier --save-exact "${wanted[@]}"
}

deno_is_current() { [ "$("$1" --version 2>/dev/null | sed -n '1s/^deno \([^ ]*\).*/\1/p')" = "$deno_version" ]; }

npm_version_of() { sed -n 's/^ *"version": "\([^"]*\)".*/\1/p' "$root/.tools/node_modules/$1/package.json" 2>/dev/null | head -n 1; }

# .tools/bin/deno is the program itself: npm's own entry starts node first, at every call.
link_local_deno() {
  local binary
  for binary in "$root"/.tools/node_modules/@deno/*/deno "$root/.tools/node_modules/deno/deno"; do
    [ -x "$binary" ] && deno_is_current "$binary" || continue
    mkdir -p "$root/.tools/bin"
    ln -sfn "$binary" "$root/.tools/bin/deno"
    return 0
  done
  return 1
}

setup_deno() {
  local found
  if found=$(command -v deno) && [ "$found" != "$root/.tools/node_modules/.bin/deno" ] && deno_is_current "$found"; then
    return 0
  fi
  link_local_deno && return 0
  install_from_npm deno
  link_local_deno || die "npm installed deno, but it does not run here (glibc 2.31 or newer is needed)"
}

setup_proto() {
  [ "$(npm_version_of @bufbuild/buf)" = "$buf_version" ] &&
    [ "$(npm_version_of @bufbuild/protoc-gen-es)" = "$protoc_gen_es_version" ] && return 0
  install_from_npm proto
}

if [ -n "$packages" ]; then
  command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || die "needs Debian (apt-get is missing)"
  install_packages
fi
if [ "$need_deno" = yes ]; then setup_deno; fi
if [ "$need_proto" = yes ]; then setup_proto; fi
