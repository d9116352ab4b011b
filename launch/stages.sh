# shellcheck shell=bash
# Sourced by the launchers: the stages of a run in their order, and the words each is called with. Who sources it defines
#
#   alone WORDS...      runs `seallm WORDS` as one process, on one machine
#   together WORDS...   runs `seallm WORDS` as all processes of the run

STAGES=(prepare base tokens train finish)

# one process uses the devices of its own machine alone; a mesh that is made for all of them does not fit there
one_machine=(
  --config.mesh.slices=0 --config.mesh.data=1 --config.mesh.fsdp=-1 --config.mesh.context=1 --config.mesh.tensor=1
)

# stage NAME WORDS...: one stage; the words name the config and the run directory
stage() {
  local name=$1
  shift
  case "$name" in
    prepare) JAX_PLATFORMS=cpu alone run --stages=corpus "$@" ;;
    base) together train --stage=base "$@" ;;
    tokens) JAX_PLATFORMS=cpu alone run --stages=vocab,pack,mixture "$@" "${one_machine[@]}" ;;
    train) together train "$@" ;;
    finish) alone run --stages=evaluate,generate,export,report "$@" "${one_machine[@]}" ;;
    *) echo "no stage '$name': ${STAGES[*]}" >&2; return 2 ;;
  esac
}

# all_stages WORDS...: the whole run; what is done already is skipped
all_stages() {
  local name
  for name in "${STAGES[@]}"; do stage "$name" "$@" || return; done
}

# worth_repeating STATUS: whether the same command may succeed now: it lost a host (69), was stopped (75), or was killed
worth_repeating() { [ "$1" -eq 69 ] || [ "$1" -eq 75 ] || [ "$1" -ge 128 ]; }

# printed WORDS...: a command as it can be pasted into a shell
printed() {
  local word words=()
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@,%-]+$ ]]; then words+=("$word"); else words+=("${word@Q}"); fi
  done
  echo "${words[*]}"
}
