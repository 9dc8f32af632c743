#!/bin/sh
# Hypercore: launcher of the single-file build. The compressed program follows this script; it is unpacked once to a
# cache named by its hash. The cache must belong to this user alone; for root, so must every directory above it.
id=@ID@
payload_sha256=@SHA256@
payload_offset=@OFFSET@
names='@NAMES@'

fail() {
  echo "hypercore: $*" >&2
  exit 126
}

uid=$(id -u)
if [ -n "${HYPERCORE_CACHE_DIR:-}" ]; then cache=$HYPERCORE_CACHE_DIR
elif [ "$uid" = 0 ]; then cache=/var/cache/hypercore
elif [ -n "${XDG_CACHE_HOME:-}" ]; then cache=$XDG_CACHE_HOME/hypercore
elif [ -n "${HOME:-}" ] && [ -d "$HOME" ] && [ -w "$HOME" ]; then cache=$HOME/.cache/hypercore
else cache=/var/tmp/hypercore-$uid; fi
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
hint="set HYPERCORE_CACHE_DIR to a directory of your own that is writable and not mounted noexec"

# Everything the program consists of, as stat prints it when nobody has touched it.
# shellcheck disable=SC2086
state_of() { (cd "$1" 2>/dev/null && exec stat -c '%n %u %a %s %Y' -- $names 2>/dev/null); }
expected="@FILES@"

check_owner() {
  [ ! -L "$cache" ] || fail "the cache $cache is a symbolic link; $hint"
  physical=$(cd -P -- "$cache" 2>/dev/null && pwd -P) || fail "cannot enter the cache $cache; $hint"
  cache=$physical
  set -- "$cache"
  if [ "$uid" = 0 ]; then
    parent=$cache
    while [ "$parent" != / ]; do
      parent=${parent%/*}
      parent=${parent:-/}
      set -- "$@" "$parent"
    done
  fi
  first=yes
  for facts in $(stat -c '%u:%A' -- "$@"); do
    owner=${facts%%:*} mode=${facts#*:}
    [ "$owner" = "$uid" ] || fail "the cache $cache, or a directory above it, belongs to user $owner; $hint"
    case $mode in
      d????w* | d???????w*)
        # A sticky directory above (/tmp) does not let others replace what is not theirs.
        case $first$mode in no*[tT]) ;; *) fail "others may write to the cache $cache, or to a directory above it; $hint" ;; esac ;;
    esac
    first=no
  done
}

unpack() {
  umask 077
  mkdir -p -- "$cache" 2>/dev/null || fail "cannot create the cache $cache; $hint"
  check_owner
  fresh=$(mktemp -d "$cache/.new.XXXXXX" 2>/dev/null) || fail "cannot write to the cache $cache; $hint"
  trap 'rm -rf -- "$fresh"' EXIT
  trap 'exit 130' INT TERM HUP
  sum=$(tail -c "+$payload_offset" -- "$0" | sha256sum) || fail "cannot read $0"
  [ "${sum%% *}" = "$payload_sha256" ] || fail "$0 is damaged: its payload does not have the hash it was built with"
  tail -c "+$payload_offset" -- "$0" 2>/dev/null | gzip -dc 2>/dev/null | tar -xpf - --no-same-owner -C "$fresh" 2>/dev/null ||
    fail "cannot unpack to the cache $cache (disk full?); $hint"
  [ "$(state_of "$fresh")" = "$expected" ] || fail "cannot unpack to the cache $cache: files are missing (disk full?)"
  # rename(2) is atomic. When another first run was quicker, its copy is the same; a damaged one makes way.
  if ! mv -T -- "$fresh" "$dir" 2>/dev/null && [ "$(state_of "$dir")" != "$expected" ]; then
    mv -T -- "$dir" "$fresh.old" 2>/dev/null
    mv -T -- "$fresh" "$dir" 2>/dev/null
    rm -rf -- "$fresh.old"
    [ "$(state_of "$dir")" = "$expected" ] || fail "cannot replace the damaged $dir"
  fi
  rm -rf -- "$fresh"
  trap - EXIT INT TERM HUP
  prune
}

# Removes other versions that nothing runs and that are more than a day old, and what broken first runs left.
prune() {
  running=$(readlink /proc/[0-9]*/exe 2>/dev/null)
  find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name "$id" -mmin +1440 2>/dev/null | while IFS= read -r old; do
    case $running in *"$old/"*) ;; *) rm -rf -- "$old" ;; esac
  done
}

if [ -d "$cache" ]; then check_owner; fi
dir=$cache/$id
if [ "$(state_of "$dir")" != "$expected" ]; then
  unpack
  dir=$cache/$id
fi
[ -x "$dir/hypercore" ] || fail "cannot run from the cache $cache: it is mounted noexec; $hint"

# Only the agent touches the machine; the other commands may talk to it and read files, nothing else.
case ${1:-} in
  agent | cluster) allow=--allow-all ;;
  *) allow='--allow-net --allow-read --allow-env --allow-sys' ;;
esac
export DENO_DIR="$dir/deno" DENO_NO_UPDATE_CHECK=1
# shellcheck disable=SC2086
exec "$dir/hypercore" run $allow --no-prompt --no-config --no-lock --no-remote --no-npm --cached-only \
  --unstable-net --unstable-no-legacy-abort "$dir/main.js" "$@"
