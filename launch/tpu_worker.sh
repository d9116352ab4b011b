#!/usr/bin/env bash
# What launch/tpu_pod.sh runs on the workers of a pod. Not meant to be called by hand.
#
#   tpu_worker.sh install NFS_OR_BUCKET
#   tpu_worker.sh prepare|base|tokens|train|finish NAME --config=... [--config.key=value ...]
#   tpu_worker.sh outcome|logs NAME
set -uo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
source launch/stages.sh
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
running=$HOME/$name.pid
lost=$SHARED/$name.lost # some worker has lost another one
run=(--workdir="$SHARED/runs/$name" "$@")
# one process uses the chips of its own host alone
own_chips=(TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS="${TPU_HOST_BOUNDS:-2,2,1}" TPU_VISIBLE_CHIPS="${TPU_HOST_CHIPS:-0,1,2,3}")

# seallm [VARIABLE=VALUE ...] WORDS...: output goes to log and screen. It goes on when the connection to who started it
# breaks; when the same run is started again, what is left of the earlier start is ended first.
seallm() {
  local from
  end_earlier
  [ "$action" != prepare ] || rm -f "$lost"
  echo running >"$outcome"
  touch "$log"
  from=$(($(wc -l <"$log") + 1))
  supervise "$@" &
  tail --lines=+"$from" --follow --pid=$! --sleep-interval=0.2 "$log"
  wait $!
}

# supervise [VARIABLE=VALUE ...] WORDS...: the exit status goes to a file where `outcome` finds it. A process that hangs
# while others have found that they lost a host does not end by itself.
supervise() {
  local variables=()
  while [[ $1 == *=* ]]; do variables+=("$1"); shift; done
  local child watcher status
  trap '' HUP
  env "${variables[@]}" "$VENV/bin/seallm" "$@" >>"$log" 2>&1 &
  child=$!
  echo "$child" >"$running"
  { until [ -e "$lost" ]; do sleep 2; done; sleep "${GRACE:-60}"; kill -KILL "$child"; } >/dev/null 2>&1 &
  watcher=$!
  wait "$child"
  status=$?
  kill "$watcher"
  rm -f "$running"
  [ "$status" -ne 69 ] || touch "$lost"
  echo "$status" >"$outcome"
  return "$status"
} 2>/dev/null

end_earlier() {
  local earlier
  read -r earlier 2>/dev/null <"$running" || return 0
  [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$earlier/cmdline") == *seallm* ]] || return 0
  kill -TERM "$earlier"
  for _ in $(seq "${GRACE:-60}"); do
    kill -0 "$earlier" 2>/dev/null || return 0
    sleep 1
  done
  kill -KILL "$earlier"
}

alone() { seallm "${own_chips[@]}" "$@"; }
together() { seallm "$1" --cluster "${@:2}"; }

case "$action" in
  prepare | base | tokens | train | finish) stage "$action" "${run[@]}" ;;
  outcome) echo "outcome=$(cat "$outcome" 2>/dev/null || echo none)" ;;
  logs) tail -n 200 "$log" ;;
  *) echo "unknown action $action" >&2; exit 2 ;;
esac
