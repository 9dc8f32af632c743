#!/usr/bin/env bash
# make demo: builds hypercore and shows a cluster of three nodes on this machine: spawn, the page through each node, a node
# dies, its container is started elsewhere, the node comes back.
# tools/demo.sh stop (make demo-stop): ends all of it and leaves the machine as it was; packages stay.
#
# Each node is an agent with a network of its own (a namespace), its own containerd and its own /run/netns; a bridge connects
# them. HYPERCORE_DEMO_DIR moves the files, HYPERCORE_DEMO_ID (up to 5 letters and digits) names what is made, HYPERCORE_DEMO_NET
# is the /24 network of the nodes without its last number.
set -euo pipefail
source "$(dirname "$0")/env.sh"

data=${HYPERCORE_DEMO_DIR:-/var/lib/hypercore-demo}
id=${HYPERCORE_DEMO_ID:-demo}
net=${HYPERCORE_DEMO_NET:-10.88.77}
hypercore=$root/hypercore
# What ./hypercore unpacks goes with the demo.
export HYPERCORE_CACHE_DIR=$data/cache
port=8080 name=demo
readonly NODES="1 2 3" READY_SECONDS=60 STOP_SECONDS=30 EVENT_SECONDS=90

[ "$(id -u)" = 0 ] || die "the demo must run as root (containers, network namespaces): sudo make demo"

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "${@}"; }
netns() { echo "hc$id-$1"; }

# The pid in a file, if that process is ours: its command line names the demo's directory.
live_pid() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "$data" || return 1
  echo "$pid"
}

end_process() {
  local pid signal=${2:-TERM} deadline=$((SECONDS + STOP_SECONDS))
  pid=$(live_pid "$1") || return 0
  kill "-$signal" "$pid" 2>/dev/null || return 0
  while live_pid "$1" >/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
    sleep 0.1
  done
}

# Waits until a command succeeds.
wait_for() {
  local what=$1 deadline=$((SECONDS + EVENT_SECONDS))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then die "it took more than $EVENT_SECONDS s: $what (logs: $data/*/agent.log)"; fi
    sleep 0.1
  done
}

# ---- Nodes: hc N ARGUMENT… is the command line on node N.

# A command in the network and the mounts of a node.
on_node() {
  local node=$1 keeper
  shift
  keeper=$(live_pid "$data/n$node/mounts.pid") || die "node n$node is not there"
  nsenter --net="/run/netns/$(netns "$node")" --mount="/proc/$keeper/ns/mnt" -- "$@"
}

write_cli() {
  cat >"$data/hc" <<END
#!/bin/sh
# hc N ARGUMENT…: the hypercore command line on node N of the demo. hc N sh: a shell there.
node=\$1; shift
enter="nsenter --net=/run/netns/hc$id-\$node --mount=/proc/\$(cat "$data/n\$node/mounts.pid")/ns/mnt --"
[ "\${1-}" != sh ] || exec \$enter sh
HYPERCORE_CACHE_DIR=$data/cache HYPERCORE_DATA_DIR=$data/n\$node exec \$enter "$hypercore" "\$@"
END
  chmod 755 "$data/hc"
}

hc() { "$data/hc" "$@"; }

# A network namespace on the bridge, and a process that keeps the mounts the node does not share with others.
make_node() {
  local node=$1 ns
  ns=$(netns "$node")
  mkdir -p -m 700 "$data/n$node"
  if [ ! -e "/run/netns/$ns" ]; then
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    ip -n "$(netns lan)" link add "n$node" type veth peer name lan0 netns "$ns"
    ip -n "$(netns lan)" link set "n$node" master lan up
    ip -n "$ns" address add "$net.$node/24" dev lan0
    ip -n "$ns" link set lan0 up
  fi
  live_pid "$data/n$node/mounts.pid" >/dev/null || {
    setsid nsenter --net="/run/netns/$ns" unshare --mount --propagation slave sh -c \
      'mkdir -p /run/netns /run/containerd && mount -t tmpfs tmpfs /run/netns && mount -t tmpfs tmpfs /run/containerd &&
       touch "$0/mounts.ready" && exec tail -f "$0/mounts.ready"' "$data/n$node" </dev/null >/dev/null 2>&1 &
    echo $! >"$data/n$node/mounts.pid"
    wait_for "mounts of node n$node" test -e "$data/n$node/mounts.ready"
  }
}

# The bridge, in a namespace of its own, and a cable from this machine to it.
make_lan() {
  local ns
  ns=$(netns lan)
  if [ -e "/run/netns/$ns" ]; then return; fi
  ip netns add "$ns"
  ip -n "$ns" link add lan type bridge
  ip -n "$ns" link set lan up
  ip link add "hc$id" type veth peer name host netns "$ns"
  ip -n "$ns" link set host master lan up
  ip address add "$net.254/24" dev "hc$id"
  ip link set "hc$id" up
}

start_agent() {
  local node=$1 join=()
  [ "$node" = 1 ] || join=(--join "$net.1")
  on_node "$node" setsid sh -c 'echo $$ >"$0"; exec "$@"' "$data/n$node/agent.pid" "$hypercore" agent \
    --node-name "n$node" --data-dir "$data/n$node" --state-dir "$data/n$node/state" --containerd-ns "hc$id-n$node" \
    --cluster-bind-addr "$net.$node:7946" --encrypt "@$data/key" --profile lan --respawn-on-node-failure \
    --cluster-base-url localhost "${join[@]}" </dev/null >>"$data/n$node/agent.log" 2>&1 &
}

wait_ready() {
  local node=$1 deadline=$((SECONDS + READY_SECONDS))
  until on_node "$node" curl -fsS -o /dev/null --max-time 2 http://127.0.0.1:8001/readyz 2>/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 20 "$data/n$node/agent.log" >&2
      die "node n$node did not start; its log is $data/n$node/agent.log"
    fi
    sleep 0.1
  done
}

sees() { [ "$(hc "$1" members --json --status alive | grep -c '"name"')" = "$2" ]; }
is_gone() { local listed; listed=$(hc "$1" list --json) && ! grep -q "\"name\": \"$name\"" <<<"$listed"; }
page() { curl -fsS --max-time 5 -H "Host: $workload.localhost" "http://$net.$1:$port/"; }
is_page() { page "$1" | grep -q "Hello from a container"; }

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

show_pages() {
  local node
  for node in $NODES; do
    echo "\$ curl -H 'Host: $workload.localhost' http://$net.$node:$port/   # node n$node"
    wait_for "the page through node n$node" is_page "$node"
    page "$node"
  done
}

start() {
  "$root/tools/setup.sh" demo
  "$root/tools/build.sh"
  local node victim image
  work=$(mktemp -d) # not local: the trap runs when this function is over
  trap 'rm -rf "$work"' EXIT
  mkdir -p -m 700 "$data"
  [ -s "$data/key" ] || (umask 077 && "$hypercore" keygen >"$data/key")

  say "three nodes (files and logs in $data)"
  make_lan
  write_cli
  for node in $NODES; do
    make_node "$node"
    live_pid "$data/n$node/agent.pid" >/dev/null || start_agent "$node"
  done
  for node in $NODES; do wait_ready "$node"; done
  for node in $NODES; do wait_for "node n$node sees all" sees "$node" 3; done
  hc 1 members

  say "a sample image, made here and loaded on each node (no registry is needed)"
  make_image "$work"
  for node in $NODES; do image=$(hc "$node" image load "$work/image.tar" | sed -n '1s/ .*//p'); done
  [ -n "$image" ] || die "the agents took no image from the archive"
  echo "$image"

  say "hypercore spawn, asked of node n1; the cluster chooses where it runs"
  hc 1 stop "$name" >/dev/null 2>&1 || true # of an earlier run
  wait_for "node n1 knows that the name is free" is_gone 1
  run hc 1 spawn --name "$name" --image-ref "$image" --ports "$port:8080" >"$work/spawned"
  cat "$work/spawned"
  workload=$(sed -n '/^[0-9a-f]\{12\}$/p' "$work/spawned" | head -n 1)
  [ -n "$workload" ] || die "spawn printed no id"
  hc 1 list

  say "its page, through every node"
  show_pages

  victim=$(hc 1 list --json | sed -n 's/.*"node": "n\([0-9]\)".*/\1/p' | head -n 1)
  say "node n$victim dies: cable out, agent killed"
  ip -n "$(netns "$victim")" link set lan0 down
  end_process "$data/n$victim/agent.pid" KILL
  local other=1 began=$SECONDS
  [ "$victim" != 1 ] || other=2
  wait_for "another node takes over" sh -c "! '$data/hc' $other list --json | tr -d ' \n' | grep -q '\"node\":\"n$victim\"'"
  wait_for "it runs" sh -c "'$data/hc' $other list --json | grep -q '\"status\": \"running\"'"
  echo "after $((SECONDS - began)) s it runs elsewhere, under the same id and URL:"
  hc "$other" list
  hc "$other" members

  say "node n$victim comes back"
  ip -n "$(netns "$victim")" link set lan0 up
  start_agent "$victim"
  wait_ready "$victim"
  for node in $NODES; do wait_for "node n$node sees all" sees "$node" 3; done
  wait_for "one copy is left" sh -c "[ \"\$('$data/hc' $victim info | sed -n 's/^workloads *\([0-9]*\) here.*/\1/p')\" = 0 ]"
  hc "$victim" list
  show_pages

  cat <<END

It works. Go on with:
  alias hc=$data/hc            hc N …: the command line on node N
  hc 1 list                    what runs
  hc 2 exec -it $name sh        a shell inside, from any node
  hc 3 logs -f $name            its log
  hc 1 move $name --to n3       move it; curl goes on
  hc 1 events                  what happens, as it happens
  hc 1 stop $name               stop it
  make demo-stop               end the demo and leave the machine as it was
END
}

stop() {
  [ -d "$data" ] || { echo "no demo is there"; return 0; }
  local node dir ns each
  for node in $NODES; do
    live_pid "$data/n$node/mounts.pid" >/dev/null || continue
    if [ -x "$hypercore" ] && live_pid "$data/n$node/agent.pid" >/dev/null; then
      for each in $(hc "$node" list --quiet 2>/dev/null); do hc "$node" stop "$each" --grace 0 >/dev/null 2>&1 && echo "stopped $each"; done
    fi
  done
  for node in $NODES; do end_process "$data/n$node/agent.pid"; done
  for node in $NODES; do
    end_process "$data/n$node/containerd/containerd.pid"
    end_lost "hc$id-n$node"
    end_process "$data/n$node/mounts.pid"
  done
  { grep -F -e " $data/" /proc/self/mountinfo || true; } | cut -d' ' -f5 | sort -r | while IFS= read -r dir; do
    umount -l "$dir"
  done
  for ns in $NODES lan; do
    if [ -e "/run/netns/$(netns "$ns")" ]; then ip netns delete "$(netns "$ns")"; fi
  done
  ip link delete "hc$id" 2>/dev/null || true # it went with the bridge's namespace
  rm -rf -- "$data"
  for node in $NODES; do
    for dir in /sys/fs/cgroup/*/"hc$id-n$node" /sys/fs/cgroup/"hc$id-n$node"; do
      if [ -d "$dir" ]; then rmdir "$dir" 2>/dev/null || echo "left $dir, which is not empty" >&2; fi
    done
  done
  echo "the demo is gone: agents, containers, networks and $data. Installed packages and ./hypercore stay."
}

# Ends what a node that was killed half-way left: shims, and the containers in its cgroups.
end_lost() {
  local namespace=$1 file pid deadline=$((SECONDS + STOP_SECONDS))
  for pid in $(ls /proc | grep -E '^[0-9]+$'); do
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "-namespace $namespace " && kill -KILL "$pid" 2>/dev/null
  done
  while :; do
    local left=0
    for file in /sys/fs/cgroup/*/"$namespace"/*/cgroup.procs /sys/fs/cgroup/"$namespace"/*/cgroup.procs; do
      [ -e "$file" ] || continue
      while IFS= read -r pid; do left=1; kill -KILL "$pid" 2>/dev/null || true; done <"$file"
      rmdir "$(dirname "$file")" 2>/dev/null || true
    done
    if [ "$left" = 0 ] || [ "$SECONDS" -ge "$deadline" ]; then return 0; fi
    sleep 0.1
  done
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  *) die "usage: tools/demo.sh [start|stop]" ;;
esac
