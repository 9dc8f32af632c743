# Sourced by the other tools: repository root, pinned versions, PATH with the local tools first.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
deno_version=2.9.6
buf_version=1.75.0
protoc_gen_es_version=2.17.0
export PATH="$root/.tools/bin:$root/.tools/node_modules/.bin:$PATH"
export DENO_NO_UPDATE_CHECK=1 DENO_NO_PROMPT=1

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}
