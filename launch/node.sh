#!/usr/bin/env bash
# All stages of a run, on one of several nodes that all start this same command. launch/gke_xpk.sh and
# launch/skypilot.yaml call it.
#
#   launch/node.sh tpu|cuda --config=... --workdir=... [--config.key=value ...]
#
# The run directory is one that all nodes see. Node 0 alone does the stages of one process; meanwhile the others wait for
# the port that it opens when it comes to a stage that all nodes share. Which node this is, and where node 0 is, comes
# from the variables of SkyPilot, of XPK's GPU nodes or of TPU pods on GKE.
#
# Exit status: 0 when the run is complete, 75 or 69 when it was stopped or lost another node
# and shall be started again, else that of the stage that
# failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
source launch/environment.sh
source launch/stages.sh

fail() { echo "node: $*" >&2; exit 2; }

extra=${1:-}
shift
[[ $extra =~ ^(tpu|cuda)$ ]] || fail "'$extra': say tpu or cuda first"
if [ -n "${SKYPILOT_NODE_RANK:-}" ]; then
  number=$SKYPILOT_NODE_RANK nodes=$SKYPILOT_NUM_NODES first=${SKYPILOT_NODE_IPS%%$'\n'*}
elif [ -n "${NODE_RANK:-}" ]; then
  number=$NODE_RANK nodes=$NNODES first=$JAX_COORDINATOR_ADDRESS
elif [ -n "${TPU_WORKER_ID:-}" ]; then
  IFS=, read -ra hosts <<<"${TPU_WORKER_HOSTNAMES:-localhost}"
  number=$((${MEGASCALE_SLICE_ID:-0} * ${#hosts[@]} + TPU_WORKER_ID))
  nodes=$((${MEGASCALE_NUM_SLICES:-1} * ${#hosts[@]}))
  first=${MEGASCALE_COORDINATOR_ADDRESS:-${hosts[0]}}
  first=${first%%:*}
else
  fail "neither SkyPilot's nor XPK's nor a TPU pod's variables are set; on one machine, use \`seallm run\`"
fi
port=${JAX_COORDINATOR_PORT:-12340} # of the next stage that all nodes share; each has its own, so that none meets the end of the one before

# Whoever stops this node tells this shell alone: what runs is told, too; it saves, and its exit status counts.
child='' told=''
trap 'told=yes; if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; else exit 75; fi' TERM

# run_told COMMAND...: runs a command that hears the signal, too
run_told() {
  local status
  "$@" &
  child=$!
  while
    told=''
    wait "$child"
    status=$?
    [ -n "$told" ] # the signal ended `wait`, not the command
  do :; done
  child=''
  return "$status"
}

alone() {
  [ "$number" -eq 0 ] || return 0
  local own=() # on a TPU pod, the chips of this host and no others
  [ "$extra" = cuda ] || own=(
    -u MEGASCALE_COORDINATOR_ADDRESS -u MEGASCALE_NUM_SLICES -u MEGASCALE_SLICE_ID
    TPU_WORKER_ID=0 TPU_WORKER_HOSTNAMES=localhost TPU_PROCESS_BOUNDS='1,1,1'
    TPU_CHIPS_PER_PROCESS_BOUNDS="${TPU_CHIPS_PER_HOST_BOUNDS:-2,2,1}"
  )
  run_told env "${own[@]}" "$VENV/bin/seallm" "$@"
}

together() {
  if [ "$number" -gt 0 ]; then
    until (exec 3<>"/dev/tcp/$first/$port") 2>/dev/null; do sleep 0.5 & wait $!; done
  fi
  run_told "$VENV/bin/seallm" "$@" --coordinator="$first:$port" --num_processes="$nodes" --process_id="$number"
  local status=$?
  port=$((port + 1))
  return "$status"
}

install_package ".[$extra]" || fail "cannot install the package"
all_stages "$@"
