#!/usr/bin/env bash
# Builds ./hypercore (or the path given): a bundle, compiled with Deno's base runtime, or, where that can't be
# downloaded, packed with Deno itself into a self-extracting executable. HYPERCORE_BUILD=compile|pack forces one.
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$root"

readonly COMPILE_TIMEOUT_SECONDS=300
out=${1:-$root/hypercore}
mode=${HYPERCORE_BUILD:-auto}
case $mode in auto | compile | pack) ;; *) die "HYPERCORE_BUILD is '$mode' (compile, pack or auto)" ;; esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
export LC_ALL=C TZ=UTC

version=$(sed -n 's/^ *"version": "\([^"]*\)".*/\1/p' deno.json | head -n 1)
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
if [ "$commit" != unknown ] && [ -n "$(git status --porcelain --untracked-files=no 2>/dev/null)" ]; then commit+=-modified; fi

bundle() {
  local kind=$1 dir=$work/$1
  deno bundle --quiet --platform deno --minify --code-splitting --outdir "$dir" main.ts >"$work/log" 2>&1 &&
    deno bundle --quiet --platform deno --minify -o "$dir/proxy_worker.js" agent/proxy/worker.ts >>"$work/log" 2>&1 || {
    cat "$work/log" >&2
    die "cannot bundle"
  }
  printf '{ "version": "%s", "commit": "%s", "build": "%s" }\n' "$version" "$commit" "$kind" >"$dir/build.json"
}

compile() {
  bundle compiled
  local dir=$work/compiled include=() file
  for file in "$dir"/*; do
    [ "$file" = "$dir/main.js" ] || include+=(--include "$file")
  done
  timeout "$COMPILE_TIMEOUT_SECONDS" deno compile --quiet --allow-all --no-prompt --no-config --no-lock --no-remote --no-npm \
    --unstable-net --unstable-no-legacy-abort "${include[@]}" -o "$work/hypercore" "$dir/main.js" >"$work/log" 2>&1 || return 1
  "$work/hypercore" version >/dev/null 2>>"$work/log"
}

pack() {
  bundle self-extracting
  local dir=$work/self-extracting deno_binary offset=0 size id sha256 names files
  deno_binary=$(deno eval 'console.log(Deno.execPath())')
  cp -- "$deno_binary" "$dir/hypercore"
  chmod 500 "$dir/hypercore"
  chmod 400 "$dir"/*.js "$dir/build.json"
  (cd "$dir" && tar --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 --sort=name -cf "$work/tar" -- *)
  gzip -6 -n -c "$work/tar" >"$work/payload"
  id=$(sha256sum <"$work/tar" | cut -c1-32)
  sha256=$(sha256sum <"$work/payload" | cut -c1-64)
  names=$(cd "$dir" && echo *)
  files=$(cd "$dir" && stat -c '%n $uid %a %s 0' -- *)
  # The offset is part of the text whose length it is.
  while :; do
    launcher "$id" "$sha256" $((offset + 1)) "$names" "$files" >"$work/stub"
    size=$(wc -c <"$work/stub")
    [ "$size" != "$offset" ] || break
    offset=$size
  done
  cat "$work/stub" "$work/payload" >"$work/hypercore"
}

launcher() {
  local text
  text=$(cat tools/launcher.sh)
  text=${text/@ID@/$1}
  text=${text/@SHA256@/$2}
  text=${text/@OFFSET@/$3}
  text=${text/@NAMES@/$4}
  text=${text/@FILES@/$5}
  printf '%s\n' "$text"
}

if [ "$mode" != pack ] && compile; then
  made="compiled with Deno's base runtime"
elif [ "$mode" = compile ]; then
  tail -n 5 "$work/log" >&2
  die "cannot compile"
else
  pack
  made="self-extracting, because Deno's compile base could not be had"
  if [ "$mode" = pack ]; then made="self-extracting, as asked"; fi
fi
chmod 755 "$work/hypercore"
# The new file takes the place of the old one, which may be running.
mv -f -- "$work/hypercore" "$out.new"
mv -f -- "$out.new" "$out"
echo "built $out: hypercore $version ($commit), $made, $(($(stat -c %s "$out") / 1048576)) MiB"
