"""launch/tpu_pod.sh against a gcloud that starts the workers as local processes."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time

import pytest

from tests.launch.cloud import FakeCloud

PHASES = ["ssh 0 prepare", "ssh all base", "ssh 0 tokens", "ssh all train", "ssh 0 finish"]
OPTIONS = ("--type=v6e-8", "--nfs=host:/share", "--", "--config=configs/quickstart.py", "--config.name=a b")
# notes its arguments; `train` then does what the fate of this attempt says
PROGRAM = """
echo "${SLURM_PROCID:-alone} $*" >>"$SHARED/words"
case "$*" in "run --stages=corpus"*) exit "${PREPARE:-0}" ;; "train --cluster --workdir="*) ;; *) exit 0 ;; esac
mkdir -p "$SHARED/attempts.$SLURM_PROCID"
attempt=$(ls "$SHARED/attempts.$SLURM_PROCID" | wc -l)
touch "$SHARED/attempts.$SLURM_PROCID/$attempt"
fates=($FATES)
fate=${fates[$attempt]:-0}
[ "$fate" = stay ] && { echo $$ >>"$SHARED/stayed"; while true; do sleep 0.1; done; }
[ "$fate" = hang ] && { touch "$SHARED/waiting"; [ "$SLURM_PROCID" = 1 ] && sleep 60; sleep 1; exit 69; }
[ "$fate" = wait ] || exit "$fate"
until [ -e "$SHARED/attempts.0/$attempt" ] && [ -e "$SHARED/attempts.1/$attempt" ]; do sleep 0.1; done
touch "$SHARED/waiting"; sleep 3; exit 1
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the workers are Linux machines")


def cloud(tmp_path, fates="", *, prepare="0", **settings):
    environment = {"FATES": fates, "PREPARE": prepare, "GRACE": "1"}
    return FakeCloud(tmp_path, workers=2, program=PROGRAM, environment=environment, **settings)


def phases(made):
    return [call for call in made.calls if call in PHASES]


def test_a_run_is_done_in_order_and_its_pod_deleted(tmp_path):
    made = cloud(tmp_path)
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert phases(made) == PHASES
    assert made.calls[-1] == "delete" and not made.exists
    words = (made.shared / "words").read_text().splitlines()
    assert words[0] == f"alone run --stages=corpus --workdir={made.shared}/runs/sea {OPTIONS[3]} {OPTIONS[4]}"
    assert sorted(line.split()[0] for line in words if " train --cluster --workdir" in line) == ["0", "1"]


def test_a_stopped_run_goes_on_without_a_new_pod(tmp_path):
    made = cloud(tmp_path, "75 75 0")
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert made.calls.count("create") == 1
    assert phases(made) == PHASES[:4] * 2 + PHASES
    assert "interrupted (status 75" in done.stderr


def test_a_killed_worker_is_survived(tmp_path):
    made = cloud(tmp_path, "wait 0", kill=f"{tmp_path}/shared/waiting")
    # the other worker ends with an error of its own when it finds the first one gone
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert made.calls.count("create") == 1 and phases(made)[-5:] == PHASES


def test_a_worker_that_hangs_is_ended_when_another_has_lost_it(tmp_path):
    made = cloud(tmp_path, "hang 0", hang=f"{tmp_path}/shared/waiting")
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert made.calls.count("create") == 1 and phases(made) == PHASES[:4] + PHASES


def test_a_broken_connection_leaves_it_running_and_a_new_one_ends_it_first(tmp_path):
    made = cloud(tmp_path, "stay 0")
    lost = made.begin("run", *OPTIONS)
    stayed = made.shared / "stayed"
    deadline = time.monotonic() + 60
    while not stayed.exists() or len(stayed.read_text().split()) < 2:
        assert lost.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(lost.pid, signal.SIGKILL)
    lost.wait()
    programs = [pathlib.Path("/proc") / number for number in stayed.read_text().split()]
    assert all(program.exists() for program in programs)
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert not any(program.exists() for program in programs)


def test_a_program_that_fails_on_one_worker_is_not_repeated_though_the_others_lost_it(tmp_path):
    made = cloud(tmp_path, "$((SLURM_PROCID ? 1 : 69))")
    done = made.pod("run", *OPTIONS)
    assert done.returncode != 0 and made.exists and phases(made) == PHASES[:4]


def test_a_preempted_pod_is_made_again(tmp_path):
    made = cloud(tmp_path, "wait 0", preempt=f"{tmp_path}/shared/waiting")
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert made.calls.count("create") == 2 and made.calls.count("delete") == 2
    assert phases(made)[-5:] == PHASES
    assert "SUSPENDED" in done.stderr


def test_a_failure_of_the_program_is_not_repeated(tmp_path):
    made = cloud(tmp_path, "1")
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 1
    assert made.exists and phases(made) == PHASES[:4]
    assert "failed with status 1 on a healthy pod; it is kept" in done.stderr


def test_a_failure_before_all_workers_have_run_is_not_repeated(tmp_path):
    made = cloud(tmp_path, prepare="1")
    done = made.pod("run", *OPTIONS)
    assert done.returncode == 1 and made.exists and phases(made) == PHASES[:1]


def test_attempts_are_counted(tmp_path):
    made = cloud(tmp_path, "75 75 75 75")
    done = made.pod("run", "--attempts=2", *OPTIONS)
    assert done.returncode == 1 and "gave up after 2 attempts" in done.stderr, done.stderr
    assert phases(made).count("ssh all train") == 2


def test_a_dry_run_prints_every_command_and_calls_nothing(tmp_path):
    made = cloud(tmp_path)
    done = made.pod("run", "--dry-run", "--slices=2", "--spot", *OPTIONS)
    assert done.returncode == 0 and not (tmp_path / "calls.jsonl").exists()
    lines = [line for line in done.stdout.splitlines() if line]
    assert all(line.startswith("gcloud compute tpus ") for line in lines)
    assert "--node-count=2 --node-prefix=sea" in lines[0] and "--spot" in lines[0]
    assert sum(" train " in line for line in lines) == 2  # on all workers of each slice
    assert "queued-resources delete sea" in lines[-1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--nfs=a:/b",), "--type=TYPE"),
        (("--type=v6e-8",), "--nfs=HOST:/PATH or --bucket"),
        (("--type=h100", "--nfs=a:/b"), "--type=h100"),
        (("--speed=9",), "--speed=9"),
        (("--slices=0",), "--slices=0"),
    ],
)
def test_mistakes_are_named(tmp_path, options, named):
    done = cloud(tmp_path).pod("run", *options)
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
