#!/usr/bin/env bash
# A run on TPU slices or GPU nodes of a GKE cluster, queued through XPK: builds the image, queues the workload, waits until
# the run is complete, through preemptions, and deletes the workload.
#
#   launch/gke_xpk.sh run --name=sea8b --cluster=research --zone=us-east5-b --type=v6e-256 --slices=2 \
#       --image=us-east5-docker.pkg.dev/PROJECT/REPOSITORY/seallm:sea8b --storage=share --shared=/share \
#       -- --config=configs/quickstart.py --config.seed=1
#
# Actions: run (everything), image, create, wait (the stages of the run), logs, status, delete.
#
#   --name=NAME        of the workload and of the run directory
#   --cluster=NAME     made with `xpk cluster create`   --zone=ZONE       Cloud zone
#   --project=PROJECT  (default: that of gcloud)        --image=IMAGE     is built from this directory and pushed
#   --type=TYPE        TPU, as v6e-256, or GPU nodes, as h100-80gb-8
#   --slices=N         several slices, or nodes with GPUs (default 1)
#   --storage=NAME     attached with `xpk storage attach`, on a path that is
#   --shared=PATH      said again here. The run lives in runs/NAME there, so that it survives its nodes.
#   --priority=NAME    in the queue: very-low, low, medium, high, very-high (default medium)
#   --spot, --flex, --on-demand, --reservation=NAME   for clusters that provision by themselves
#   --attempts=N       times that the workload is started after a preemption or a lost node (default 100)
#   --grace=SECONDS    from the signal to the end of a pod, for its last checkpoint (default 300)
#   --keep             do not delete the workload at the end
#   --dry-run          print every command, do nothing
#
# Everything after -- goes to `seallm run` and `seallm train`. Needs xpk, kubectl, gcloud and, for the image, docker.
# Exit status: 0 when the run is complete, else that of the command that failed.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/stages.sh

fail() { echo "gke_xpk: $*" >&2; exit 2; }
say() { echo "gke_xpk: $*" >&2; }

action=${1:-}; shift || true
name='' cluster='' zone='' type='' project='' image='' storage='' shared='' capacity='' keep='' dry_run=''
slices=1 priority=medium attempts=100 grace=300
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;         --cluster=*) cluster=${1#*=} ;;   --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;         --project=*) project=${1#*=} ;;   --image=*) image=${1#*=} ;;
    --storage=*) storage=${1#*=} ;;   --shared=*) shared=${1#*=} ;;     --slices=*) slices=${1#*=} ;;
    --priority=*) priority=${1#*=} ;; --attempts=*) attempts=${1#*=} ;; --grace=*) grace=${1#*=} ;;
    --spot | --flex | --on-demand | --reservation=*) capacity=$1 ;;
    --keep) keep=yes ;;               --dry-run) dry_run=yes ;;
    --) shift; break ;;
    *) fail "unknown option $1; see the head of launch/gke_xpk.sh" ;;
  esac
  shift
done

# XPK takes 40 characters, and a name may not end with -
[[ $name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
  fail "--name='$name': at most 40 lower-case letters, digits and -, beginning with a letter"
[ -n "$cluster" ] || fail "--cluster=NAME is missing"
[ -n "$zone" ] || fail "--zone=ZONE is missing"
for number in slices attempts grace; do
  [[ ${!number} =~ ^[1-9][0-9]*$ ]] || fail "--$number=${!number}: a positive number"
done
[[ $priority =~ ^(very-)?(low|high)$|^medium$ ]] || fail "--priority=$priority: very-low, low, medium, high or very-high"
place=(--cluster="$cluster" --zone="$zone" ${project:+--project="$project"})
case "$type" in
  v[0-9]* | tpu*) extra=tpu devices=(--tpu-type="$type" --num-slices="$slices") ;;
  *) extra=cuda devices=(--device-type="$type" --num-nodes="$slices") ;;
esac
needs() { [ -n "${!1}" ] || fail "$action needs --$1=$2"; }

call() { if [ -n "$dry_run" ]; then printed "$@"; else "$@"; fi; }

image() {
  needs image IMAGE
  needs type TYPE
  call docker build --platform=linux/amd64 --file=launch/Dockerfile --build-arg=EXTRA="$extra" --tag="$image" .
  call docker push "$image"
}

create() {
  needs image IMAGE
  needs type TYPE
  needs storage NAME
  needs shared PATH
  # 75: the run was stopped and saved; 69: a process lost another. XPK adds those of killed processes; any other status is
  # a failure of the program.
  call xpk workload create --workload="$name" "${place[@]}" "${devices[@]}" --docker-image="$image" \
    --storage="$storage" --priority="$priority" ${capacity:+"$capacity"} --max-restarts=$((attempts - 1)) \
    --restart-on-exit-codes=69,75 --termination-grace-period-seconds="$grace" \
    --command="exec launch/node.sh $(printed "$extra" --workdir="$shared/runs/$name" "$@")"
}

await() { call xpk workload list "${place[@]}" --wait-for-job-completion="$name"; }

delete() { call xpk workload delete --workload="$name" "${place[@]}"; }

logs() { call kubectl logs --selector=xpk.google.com/workload="$name" --all-containers --prefix --tail=200; }

status() { call xpk workload list "${place[@]}" --filter-by-job="$name"; }

run() {
  local result=0
  image
  create "$@"
  await || result=$?
  if [ "$result" -ne 0 ]; then
    say "the workload $name failed or is lost (status $result); it is kept: see '$0 logs', then '$0 delete'"
    return "$result"
  fi
  [ -n "$dry_run" ] || say "the run $name is complete"
  [ -n "$keep" ] || delete
}

case "$action" in
  run | create) "$action" "$@" ;;
  image | logs | status | delete) "$action" ;;
  wait) await ;;
  *) fail "say what to do: run, image, create, wait, logs, status or delete" ;;
esac
