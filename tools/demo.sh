#!/usr/bin/env bash
# make demo: builds hypercore, starts an agent, makes a sample image, runs it and gets its page through the proxy.
# tools/demo.sh stop (make demo-stop): ends all of it and leaves the machine as it was; packages stay.
# HYPERCORE_DEMO_DIR, _STATE, _NAMESPACE, _SUBNET, _PORT (the next two are the APIs) move it elsewhere.
set -euo pipefail
source "$(dirname "$0")/env.sh"

data=${HYPERCORE_DEMO_DIR:-/var/lib/hypercore-demo}
state=${HYPERCORE_DEMO_STATE:-/run/hypercore-demo}
namespace=${HYPERCORE_DEMO_NAMESPACE:-hypercore-demo}
subnet=${HYPERCORE_DEMO_SUBNET:-192.168.126.0/24}
port=${HYPERCORE_DEMO_PORT:-18080}
api=127.0.0.1:$((port + 1)) http=127.0.0.1:$((port + 2))
hypercore=$root/hypercore
name=demo
readonly READY_SECONDS=60 STOP_SECONDS=30

[ "$(id -u)" = 0 ] || die "the demo must run as root (containers, network namespaces): sudo make demo"

say() { printf '\n== %s\n' "$*"; }
cli() { "$hypercore" "$@" --api "$api" --data-dir "$data"; }

# The pid in a file, if that process is ours: its command line names the demo's data directory.
live_pid() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "$data" || return 1
  echo "$pid"
}

end_process() {
  local pid deadline=$((SECONDS + STOP_SECONDS))
  pid=$(live_pid "$1") || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  while live_pid "$1" >/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
    sleep 0.1
  done
}

start_agent() {
  local deadline=$((SECONDS + READY_SECONDS))
  setsid "$hypercore" agent --data-dir "$data" --state-dir "$state" --containerd-socket "$data/containerd.sock" \
    --containerd-ns "$namespace" --subnet "$subnet" --cluster-base-url localhost \
    --grpc-bind-addr "$api" --http-bind-addr "$http" </dev/null >>"$data/agent.log" 2>&1 &
  echo $! >"$data/agent.pid"
  until curl -fsS -o /dev/null --max-time 2 "http://$http/readyz" 2>/dev/null; do
    if ! kill -0 "$(cat "$data/agent.pid")" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 20 "$data/agent.log" >&2
      die "the agent did not start; its log is $data/agent.log"
    fi
    sleep 0.05
  done
}

# An image made on the spot: Debian's static busybox, serving one page. Leaves an OCI layout as tar.
make_image() {
  local work=$1 rootfs=$1/bundle/rootfs
  umoci init --layout "$work/image"
  umoci new --image "$work/image:latest"
  umoci unpack --image "$work/image:latest" "$work/bundle" 2>/dev/null
  mkdir -p "$rootfs/bin" "$rootfs/www"
  cp /bin/busybox "$rootfs/bin/busybox"
  ln -s busybox "$rootfs/bin/sh"
  echo "Hello from a container that Hypercore runs." >"$rootfs/www/index.html"
  umoci repack --image "$work/image:latest" "$work/bundle" 2>/dev/null
  umoci config --image "$work/image:latest" --config.entrypoint /bin/busybox --config.cmd httpd --config.cmd -f \
    --config.cmd -p --config.cmd 8080 --config.cmd -h --config.cmd /www --config.exposedports 8080/tcp
  sed -i 's/"latest"/"hypercore-demo:latest"/' "$work/image/index.json" # umoci takes no full name
  tar -C "$work/image" -cf "$work/image.tar" .
}

# What the machine was like before, so that stop can put it back.
remember() {
  [ ! -e "$data/before" ] || return 0
  mkdir -p "$data/before.new"
  cat /proc/sys/net/ipv4/ip_forward >"$data/before.new/ip_forward"
  nft list tables >"$data/before.new/tables" 2>/dev/null || true
  mv "$data/before.new" "$data/before"
}

start() {
  "$root/tools/setup.sh" demo
  "$root/tools/build.sh"
  local image id url host page
  work=$(mktemp -d) # not local: the trap runs when this function is over
  trap 'rm -rf "$work"' EXIT
  mkdir -p -m 700 "$data"
  remember

  say "starting an agent (data in $data, log in $data/agent.log)"
  end_process "$data/agent.pid"
  start_agent
  cli stop "$name" >/dev/null 2>&1 || true # of an earlier run

  say "making a sample image and loading it"
  make_image "$work"
  image=$(cli image load "$work/image.tar" | sed -n '1s/ .*//p')
  [ -n "$image" ] || die "the agent took no image from the archive"
  echo "$image"

  say "hypercore spawn --name $name --image-ref $image --ports $port:8080"
  cli spawn --name "$name" --image-ref "$image" --ports "$port:8080" >"$work/spawned"
  id=$(sed -n 1p "$work/spawned") url=$(sed -n 2p "$work/spawned")
  echo "id  $id"
  echo "url $url"
  cli list

  host=${url#*://}
  host=${host%%/*}
  say "curl -H 'Host: $host' http://127.0.0.1:$port/"
  page=$(curl -fsS --max-time 10 --retry 20 --retry-delay 1 --retry-all-errors -H "Host: $host" "http://127.0.0.1:$port/") ||
    die "no page came back; see $hypercore logs $id --api $api --data-dir $data and $data/agent.log"
  echo "$page"
  case $page in *"Hello from a container"*) ;; *) die "that is not the page of the sample image" ;; esac

  cat <<END

It works. Go on with:
  alias hc='$hypercore'; export HYPERCORE_API=$api HYPERCORE_DATA_DIR=$data
  curl $url                 the page, by its own name
  hc list                   what runs
  hc exec -it $name sh       a shell inside
  hc logs -f $name           its log
  hc stop $name              stop it
  make demo-stop            end the demo and leave the machine as it was
END
}

# Takes out what CNI and the agent added to a firewall that was not there before.
restore_firewall() {
  local save table family rules
  for save in iptables ip6tables; do
    command -v "$save-save" >/dev/null || continue
    for table in filter nat; do
      grep -qs "^table .*CNI" "$data/before/tables" && continue
      "$save-save" -t "$table" 2>/dev/null | sed -n '/ -j CNI-\|^-A CNI-/s/^-A /-D /p' | while IFS= read -r rule; do
        eval "$save -t $table $rule" 2>/dev/null || true
      done
      "$save-save" -t "$table" 2>/dev/null | sed -n 's/^:\(CNI-[A-Z0-9a-z-]*\) .*/\1/p' | while IFS= read -r chain; do
        "$save" -t "$table" -F "$chain" 2>/dev/null || true
        "$save" -t "$table" -X "$chain" 2>/dev/null || true
      done
    done
  done
  nft delete table inet "hypercore_${subnet//[.\/]/_}" 2>/dev/null || true
  nft list tables 2>/dev/null | while read -r _ family table; do
    grep -qxF "table $family $table" "$data/before/tables" && continue
    case $table in filter | nat | mangle | raw) ;; *) continue ;; esac
    # A table that iptables made for CNI: base chains only, no rules left.
    rules=$(nft list table "$family" "$table" | grep -cvE '^(table .*|\}|\s*chain .*|\s*type .*|\s*\}|\s*)$' || true)
    if [ "$rules" = 0 ]; then nft delete table "$family" "$table"; fi
  done
}

stop() {
  [ -d "$data" ] || { echo "no demo is there"; return 0; }
  local id dir containerd_pid="$data/containerd/containerd.pid"
  if [ -x "$hypercore" ]; then
    live_pid "$data/agent.pid" >/dev/null || start_agent
    for id in $(cli list --quiet); do cli stop "$id" >/dev/null && echo "stopped $id"; done
  fi
  end_process "$data/agent.pid"
  end_process "$containerd_pid"
  if [ -d "$data/before" ]; then
    restore_firewall
    if [ "$(cat "$data/before/ip_forward")" = 0 ]; then echo 0 >/proc/sys/net/ipv4/ip_forward; fi
  fi
  { grep -F -e " $data/" -e " $state/" /proc/self/mountinfo || true; } | cut -d' ' -f5 | sort -r | while IFS= read -r dir; do
    umount -l "$dir"
  done
  rm -rf -- "$data" "$state"
  for dir in /sys/fs/cgroup/*/"$namespace" /sys/fs/cgroup/"$namespace" /run/containerd/runc/"$namespace"; do
    if [ -d "$dir" ]; then rmdir "$dir" 2>/dev/null || echo "left $dir, which is not empty" >&2; fi
  done
  echo "the demo is gone: agent, containers, networks, rules and $data. Installed packages and ./hypercore stay."
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  *) die "usage: tools/demo.sh [start|stop]" ;;
esac
