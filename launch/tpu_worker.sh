#!/usr/bin/env bash
# What launch/tpu_pod.sh runs on the workers of a pod. Not meant to be called by hand.
#
#   tpu_worker.sh install NFS_OR_BUCKET
#   tpu_worker.sh prepare|base|tokens|train|finish NAME --config=... [--config.key=value ...]
#   tpu_worker.sh healthy|logs NAME
set -uo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
SHARED=${SHARED:-$HOME/shared}

mount_shared() {
  mkdir -p "$SHARED"
  mountpoint -q "$SHARED" && return
  case "$1" in
    gs://*) gcsfuse --implicit-dirs --rename-dir-limit=10000 "${1#gs://}" "$SHARED" ;;
    *)
      command -v mount.nfs >/dev/null || sudo apt-get install -y -qq nfs-common
      sudo mount -t nfs "$1" "$SHARED" && sudo chmod a+rwx "$SHARED"
      ;;
  esac
}

action=$1
shift
if [ "$action" = install ]; then
  mount_shared "$1" || { echo "cannot mount $1" >&2; exit 1; }
  install_package ".[tpu]"
  exit
fi

name=$1
shift
log=$HOME/$name.log
outcome=$HOME/$name.status
run=(--workdir="$SHARED/runs/$name" "$@")
# one process uses the chips of its own host alone; a mesh that is made for the pod does not fit them
alone=(--config.mesh.data=1 --config.mesh.fsdp=-1 --config.mesh.context=1 --config.mesh.tensor=1)
alone_on_tpu=(TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS="${TPU_HOST_BOUNDS:-2,2,1}" TPU_VISIBLE_CHIPS="${TPU_HOST_CHIPS:-0,1,2,3}")

# seallm [VARIABLE=VALUE ...] WORDS...: output goes to log and screen, the exit status to a file where `healthy` finds it
seallm() {
  local variables=()
  while [[ $1 == *=* ]]; do variables+=("$1"); shift; done
  echo running >"$outcome"
  env "${variables[@]}" "$VENV/bin/seallm" "$@" 2>&1 | tee -a "$log"
  local status=${PIPESTATUS[0]}
  echo "$status" >"$outcome"
  return "$status"
}

case "$action" in
  prepare) seallm JAX_PLATFORMS=cpu run --stages=corpus "${run[@]}" ;;
  base) seallm train --cluster --stage=base "${run[@]}" ;;
  tokens) seallm JAX_PLATFORMS=cpu run --stages=vocab,pack,mixture "${run[@]}" "${alone[@]}" ;;
  train) seallm train --cluster "${run[@]}" ;;
  finish) seallm "${alone_on_tpu[@]}" run --stages=evaluate,generate,export,report "${run[@]}" "${alone[@]}" ;;
  healthy)
    # a process that was killed leaves no exit status of its own, or that of a signal
    read -r last <"$outcome" 2>/dev/null || last=none
    [[ $last =~ ^[0-9]+$ ]] && [ "$last" -lt 128 ]
    ;;
  logs) tail -n 200 "$log" ;;
  *) echo "unknown action $action" >&2; exit 2 ;;
esac
