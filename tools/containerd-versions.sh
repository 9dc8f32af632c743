#!/usr/bin/env bash
# Fetches newer containerd releases from Debian's later suites into .tools/containerd/<suite>/, for the tests that run
# against more than the machine's own. Uses a private apt configuration: the machine's sources stay as they are.
# The runc is the machine's own: the later ones need a later libc.
# Prints "<suite> <directory with the binaries>" for each suite that is there; one that can't be had is named on stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/.tools/containerd
mkdir -p "$out"
# Where this machine has its own packages from: the later suites stand there too.
mirror=$(apt-get indextargets --format '$(IDENTIFIER) $(RELEASE) $(REPO_URI)' | sed -n 's/^Packages [a-z]* //p' | head -n 1)

fetch() {
  local suite=$1 tmp
  tmp=$(mktemp -d)
  mkdir -p "$tmp"/{lists/partial,cache/archives/partial,parts,debs}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$tmp/sources.list"
  : >"$tmp/status"
  local apt=(-o Dir::Etc::SourceList="$tmp/sources.list" -o Dir::Etc::SourceParts="$tmp/parts"
    -o Dir::State::Lists="$tmp/lists" -o Dir::State::Status="$tmp/status" -o Dir::Cache="$tmp/cache"
    -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none)
  if apt-get -qq "${apt[@]}" update && (cd "$tmp/debs" && apt-get -qq "${apt[@]}" download containerd); then
    mkdir "$tmp/root" "$tmp/bin"
    for deb in "$tmp"/debs/*.deb; do dpkg -x "$deb" "$tmp/root"; done
    find "$tmp/root" -type f -name 'containerd*' -perm -100 -exec mv {} "$tmp/bin/" \;
    # A second run, or one at the same time, may have been first.
    mv -T "$tmp/bin" "$out/$suite" 2>/dev/null || [ -x "$out/$suite/containerd" ]
  fi
  rm -rf "$tmp"
}

for suite in "${@:-trixie sid}"; do
  for name in $suite; do
    [ -x "$out/$name/containerd" ] || fetch "$name" || true
    if [ -x "$out/$name/containerd" ] && "$out/$name/containerd" --version >/dev/null 2>&1; then
      echo "$name $out/$name"
    else
      echo "containerd of Debian $name can't be had here" >&2
    fi
  done
done
