#!/usr/bin/env bash
# A run on a Cloud TPU pod: creates it, installs the package, trains on all workers, resumes after a preemption, or when a
# worker is lost or hangs, until the run is complete, and deletes the pod.
#
#   launch/tpu_pod.sh run --name=sea8b --zone=us-east5-b --type=v6e-256 --spot --nfs=10.0.0.2:/share \
#       -- --config=configs/quickstart.py --config.seed=1
#
# Actions: run (everything), create, install, start (the stages of the run), logs, status, delete.
#
#   --name=NAME        of the queued resource, of its nodes and of the run directory
#   --zone=ZONE        Cloud zone                      --project=PROJECT  (default: that of gcloud)
#   --type=TYPE        accelerator, as v5litepod-256   --slices=N         several slices of that type (default 1)
#   --version=NAME     runtime (default: by the type)  --spot, --reserved how it is paid for (default: on demand)
#   --nfs=HOST:/PATH   shared directory, as Filestore, or --bucket=gs://NAME, mounted with gcsfuse. The run lives in
#                      runs/NAME there, so that it survives the pod. One of the two is needed.
#   --attempts=N       times that the run is started (default 100)
#   --poll=SECONDS     between two looks at a queued resource (default 30)
#   --keep             do not delete the pod at the end
#   --dry-run          print every command, do nothing
#
# Training goes on when the connection to the pod breaks; the same command takes the run up again. A worker that does not
# answer twice in a row makes it a new pod.
#
# Everything after -- goes to `seallm run` and `seallm train`. Exit status: 0 when the run is complete, else that of the
# command that failed.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/stages.sh

fail() { echo "tpu_pod: $*" >&2; exit 2; }
say() { echo "tpu_pod: $*" >&2; }

action=${1:-}; shift || true
name= zone= type= project= version= nfs= bucket= slices=1 attempts=100 poll=30 payment= keep= dry_run=
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;        --zone=*) zone=${1#*=} ;;      --type=*) type=${1#*=} ;;
    --project=*) project=${1#*=} ;;  --version=*) version=${1#*=} ;; --slices=*) slices=${1#*=} ;;
    --nfs=*) nfs=${1#*=} ;;          --bucket=*) bucket=${1#*=} ;;  --attempts=*) attempts=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;        --spot | --reserved) payment=$1 ;;
    --keep) keep=yes ;;              --dry-run) dry_run=yes ;;
    --) shift; break ;;
    *) fail "unknown option $1; see the head of launch/tpu_pod.sh" ;;
  esac
  shift
done
arguments=("$@")

[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || fail "--name='$name': lower-case letters, digits and -, beginning with a letter"
[ -n "$zone" ] || fail "--zone=ZONE is missing"
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices=$slices: a positive number"
needs() { [ -n "${!1}" ] || fail "$action needs --$1=${2}"; }
case "$type" in
  v6e-*) version=${version:-v2-alpha-tpuv6e} ;;
  v5p-*) version=${version:-v2-alpha-tpuv5} ;;
  v5litepod-*) version=${version:-v2-alpha-tpuv5-lite} ;;
  v4-* | "") version=${version:-tpu-ubuntu2204-base} ;;
  *) [ -n "$version" ] || fail "--type=$type: name its runtime, too, with --version=NAME" ;;
esac
place=(--zone="$zone" ${project:+--project="$project"} --quiet)
alive=(--ssh-flag="-o ServerAliveInterval=15" --ssh-flag="-o ServerAliveCountMax=8") # a host that is gone says nothing
nodes=("$name")
if [ "$slices" -gt 1 ]; then
  nodes=()
  for ((slice = 0; slice < slices; slice++)); do nodes+=("$name-$slice"); done
fi

# cloud WORDS...: gcloud compute tpus WORDS, or what would be run
cloud() {
  if [ -n "$dry_run" ]; then
    local words=(gcloud compute tpus)
    for word in "$@"; do
      [[ $word =~ ^[A-Za-z0-9_./:=@-]+$ ]] && words+=("$word") || words+=("${word@Q}")
    done
    echo "${words[*]}"
  else
    gcloud compute tpus "$@"
  fi
}

# on WORKER COMMAND: runs it on a worker of the first node, or with WORKER=all on all workers of all nodes; fails if one does
on() {
  local worker=$1 command=$2 node pids=() status=0 code
  for node in "${nodes[@]}"; do
    cloud tpu-vm ssh "$node" "${place[@]}" "${alive[@]}" --worker="$worker" --command="$command" &
    pids+=($!)
    [ "$worker" = all ] || break
  done
  for pid in "${pids[@]}"; do
    code=0; wait "$pid" || code=$?
    [ "$code" -eq 0 ] || status=$code
  done
  return "$status"
}

# the state of the queued resource: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED ..., or NONE
state() {
  [ -z "$dry_run" ] || { echo ACTIVE; return; }
  gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format="value(state.state)" 2>/dev/null || echo NONE
}

create() {
  needs type TYPE
  local shape=(--node-id="$name") now
  [ "$slices" -eq 1 ] || shape=(--node-count="$slices" --node-prefix="$name")
  [ -z "$dry_run" ] && now=$(state) || now=NONE
  case "$now" in
    SUSPENDED | SUSPENDING | FAILED) say "$name is $now: deleting what is left of it"; delete; now=NONE ;;
  esac
  if [ "$now" = NONE ]; then
    cloud queued-resources create "$name" "${shape[@]}" "${place[@]}" \
      --accelerator-type="$type" --runtime-version="$version" ${payment:+"$payment"}
  fi
  until now=$(state); [ "$now" = ACTIVE ]; do
    case "$now" in
      FAILED | SUSPENDED | NONE) say "$name became $now while it was waited for"; return 1 ;;
    esac
    say "$name is $now"
    sleep "$poll"
  done
  say "$name is ACTIVE: ${#nodes[@]} node(s)"
}

delete() { cloud queued-resources delete "$name" "${place[@]}" --force; }

install() {
  [ -n "$nfs$bucket" ] || fail "$action needs --nfs=HOST:/PATH or --bucket=gs://NAME, for the run directory"
  local folder=${TMPDIR:-/tmp}/seallm_jax-$name archive node
  [ -n "$dry_run" ] || folder=$(mktemp -d "$folder-XXXXXX")  # another run may be on its way from this machine
  archive=$folder/seallm_jax.tar.gz
  [ -n "$dry_run" ] ||
    tar --exclude='__pycache__' -czf "$archive" setup.py pyproject.toml README.md LICENSE seallm_jax configs launch
  for node in "${nodes[@]}"; do
    cloud tpu-vm scp "$archive" "$node:seallm_jax.tar.gz" "${place[@]}" --worker=all
  done
  [ -n "$dry_run" ] || rm -r "$folder"
  on all "mkdir -p seallm_jax && tar -xzf seallm_jax.tar.gz -C seallm_jax && seallm_jax/launch/tpu_worker.sh install $(printed "${nfs:-$bucket}")"
}

worker() { echo "seallm_jax/launch/tpu_worker.sh $1 $(printed "$name" "${arguments[@]}")"; }

# One process prepares and evaluates; the stages that train run on all.
start() {
  local phase
  for phase in 0:prepare all:base 0:tokens all:train 0:finish; do
    started=${phase%%:*}
    on "$started" "$(worker "${phase#*:}")" || return
  done
}

run() {
  local attempt status
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    status=0 started=
    { create && install && start; } || status=$?
    if [ "$status" -eq 0 ]; then
      say "the run $name is complete"
      [ -n "$keep" ] || delete
      return 0
    fi
    if [ "$(state)" = ACTIVE ] && ! interrupted; then
      say "failed with status $status on a healthy pod; it is kept: see '$0 logs', then '$0 delete'"
      return "$status"
    fi
    say "interrupted (status $status, $name is $(state)); attempt $attempt of $attempts ends, the run continues from its checkpoint"
    if [ "$(state)" = ACTIVE ] && ! answering && sleep "$poll" && ! answering; then
      say "a worker of $name does not answer; the pod is made again"
      delete
    fi
  done
  say "gave up after $attempts attempts"
  return 1
}

answering() { on all true >/dev/null 2>&1; }

# whether what was started last may succeed when it is started again, because a worker is gone, was stopped or has lost
# another one, rather than that the program failed. The status of ssh does not tell.
interrupted() {
  local outcomes outcome found=1
  answering || return 0
  [ -n "$started" ] || return 1
  outcomes=$(on "$started" "seallm_jax/launch/tpu_worker.sh outcome $(printed "$name")" 2>/dev/null) || return 0
  for outcome in $(grep -o 'outcome=[a-z0-9]*' <<<"$outcomes"); do
    case "${outcome#*=}" in
      none | running) return 0 ;; # the machine was restarted
      0) ;;
      *)
        [ "${outcome#*=}" -lt 128 ] || return 0
        worth_repeating "${outcome#*=}" || found=2
        ;;
    esac
    [ "$found" -eq 2 ] || found=0
  done
  return "$found"
}

logs() { on all "seallm_jax/launch/tpu_worker.sh logs $(printed "$name")"; }

status() { echo "$name: $(state)"; }

case "$action" in
  run | create | install | start | logs | status | delete) "$action" ;;
  *) fail "say what to do: run, create, install, start, logs, status or delete" ;;
esac; exit # in one line, so that nothing is read of a script that has changed meanwhile
