"""The search, against compilers that are made up: it keeps its rules, and finds what is best."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import MeshConfig, ModelConfig, PackingConfig, TrainConfig
from seallm_jax.planning.candidate import Candidate, candidates
from seallm_jax.planning.plan import Plan
from seallm_jax.planning.rough_cost import RoughCost
from seallm_jax.planning.search import FAILURE, Search, Trial
from seallm_jax.planning.topology import Topology
from tests.planning.plans import TOO_LARGE, plan, step_time

MODEL = ModelConfig(
    vocabulary_size=32_000,
    padded_vocabulary_size=32_000,
    hidden_size=2048,
    intermediate_size=5632,
    num_layers=16,
    num_heads=16,
    num_key_value_heads=4,
    head_size=128,
)
TRAIN, PACKING, TOPOLOGY = TrainConfig(batch_rows=64, remat="full"), PackingConfig(sequence_length=2048), "v5e:4x4"
LEGAL = list(candidates(MODEL, TRAIN, PACKING, MeshConfig(), 16))
COST = RoughCost(MODEL, TRAIN, PACKING, Topology.parse(TOPOLOGY))
START = Candidate(MeshConfig(fsdp=16), "full", 64, 1)


class Compiler:
    """Memory and time that differ from the rules of thumb by up to a factor of their own for each candidate."""

    def __init__(self, seed: int, error: float, capacity: float):
        self._seed, self._error, self.capacity = seed, error, capacity
        self.compiled: list[Candidate] = []

    def truth(self, candidate: Candidate) -> tuple[float, float]:
        draw = random.Random(f"{self._seed} {candidate}")
        memory, time = (2 ** draw.uniform(-self._error, self._error) for _ in range(2))
        return max(memory * COST.bytes(candidate), COST.least_bytes(candidate)), time * COST.seconds(candidate)

    def __call__(self, candidate: Candidate) -> Plan:
        assert candidate not in self.compiled
        self.compiled.append(candidate)
        memory, seconds = self.truth(candidate)
        rows = {"batch_rows": candidate.batch_rows, "capacity_bytes": int(self.capacity)}
        if memory > self.capacity:
            return plan(**TOO_LARGE | rows | {"needed_bytes": int(memory)})
        return plan(**rows, peak_bytes=int(memory), time=step_time(seconds))


def searched(compiler: Compiler, compilations: int) -> Search:
    search = Search(LEGAL, COST, int(compiler.capacity))
    search.add(Trial(START, compiler(START)))
    search.run(compiler, compilations)
    return search


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), error=st.floats(0, 1.5), gib=st.floats(0.5, 40), compilations=st.integers(1, 12))
def test_rules(seed, error, gib, compilations):
    compiler = Compiler(seed, error, gib * 2**30)
    search = searched(compiler, compilations)
    spent = sum(1 if trial.fits else FAILURE for trial in search.trials)
    assert len(compiler.compiled) == len(search.trials) and spent <= max(compilations, 1)
    assert [trial.candidate for trial in search.trials] == compiler.compiled
    best = search.best()
    fitting = [trial for trial in search.trials if trial.fits]
    assert (best is None) == (not fitting)
    if best is not None:
        assert best.plan is not None and best.plan.tokens_per_second == max(t.plan.tokens_per_second for t in fitting)
    for number, failed in enumerate(search.trials):
        for later in (trial.candidate for trial in search.trials[number + 1 :]):
            if not failed.fits and later.mesh == failed.candidate.mesh and later.remat == failed.candidate.remat:
                assert later.rows_on_a_device < failed.candidate.rows_on_a_device


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), gib=st.floats(3, 40))
def test_finds_nearly_the_best_where_rules_of_thumb_are_off_by_a_tenth(seed, gib):
    compiler = Compiler(seed, 0.14, gib * 2**30)  # 2 ** 0.14 is 1.10
    best = searched(compiler, 12).best(64)
    truths = [compiler.truth(candidate) for candidate in LEGAL if candidate.batch_rows == 64]
    possible = [seconds for memory, seconds in truths if memory <= compiler.capacity]
    if possible:
        assert best is not None and best.plan is not None and best.plan.time is not None
        assert best.plan.time.seconds <= 1.15 * min(possible)


def test_a_rule_that_is_wrong_for_all_is_corrected():
    """The compiler needs three times what the rule says: after the first trial that is known."""

    class Heavy(Compiler):
        def truth(self, candidate: Candidate) -> tuple[float, float]:
            return 3 * COST.bytes(candidate), COST.seconds(candidate)

    compiler = Heavy(0, 0.0, 16 * 2**30)
    search = searched(compiler, 12)
    assert search.best() is not None
    assert [trial.fits for trial in search.trials].count(False) <= 2  # the first, and what the first cannot tell


def test_refused_meshes_are_noted_and_left():
    compiler = Compiler(0, 0.0, 16 * 2**30)

    def picky(candidate: Candidate) -> Plan:
        if candidate.mesh.tensor > 1 or candidate.mesh.data > 1:
            compiler.compiled.append(candidate)
            raise UsageError("no such mesh")
        return compiler(candidate)

    search = Search(LEGAL, COST, int(compiler.capacity))
    search.add(Trial(START, picky(START)))
    search.run(picky, 8)
    refused = [trial for trial in search.trials if trial.refused]
    assert len({trial.candidate.mesh for trial in refused}) == len(refused)
    assert all(trial.refused == "no such mesh" and not trial.fits for trial in refused)
    assert search.best() is not None


def test_a_remedy_fits_and_changes_little():
    start = dataclasses.replace(START, remat="none")
    needed = COST.bytes(start)
    search = Search(LEGAL, COST, int(0.5 * needed))
    search.add(Trial(start, plan(**TOO_LARGE | {"needed_bytes": int(needed)})))
    remedy = search.remedy()
    assert remedy is not None and remedy.mesh == start.mesh and remedy.batch_rows == start.batch_rows
    assert (remedy.remat == start.remat) != (remedy.accumulation == start.accumulation)
    assert COST.bytes(remedy) <= 0.5 * needed
    assert search.bytes(start) == pytest.approx(needed, rel=1e-6)
    assert search.fits_on(COST, int(0.5 * needed), remedy) and not search.fits_on(COST, int(0.5 * needed), start)


def test_nothing_fits():
    compiler = Compiler(0, 0.0, 0.2 * 2**30)
    search = searched(compiler, 5)
    assert search.best() is None and search.remedy() is None and search.too_large > 0
