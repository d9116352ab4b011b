"""Rules of thumb: what they must know exactly, and the direction in which they must go."""

from __future__ import annotations

import dataclasses

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, ModelConfig, OptimizerConfig, PackingConfig, TrainConfig
from seallm_jax.planning.candidate import REMATS, Candidate, candidates
from seallm_jax.planning.rough_cost import RoughCost
from seallm_jax.planning.topology import Topology
from seallm_jax.training.step import build_step

MODEL = ModelConfig(vocabulary_size=1000, padded_vocabulary_size=1024, num_key_value_heads=2)
TRAIN, PACKING = TrainConfig(batch_rows=64), PackingConfig(sequence_length=512)
TOPOLOGY = Topology.parse("v5e:2x4")
LEGAL = list(candidates(MODEL, TRAIN, PACKING, MeshConfig(), 8))
COST = RoughCost(MODEL, TRAIN, PACKING, TOPOLOGY)


@pytest.mark.parametrize("sizes", [(1, 8, 1, 1), (2, 2, 1, 2), (8, 1, 1, 1)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": OptimizerConfig(state_dtype="bfloat16")},
        {"optimizer": OptimizerConfig(trainable=("layers.*",))},
    ],
)
def test_parameters_and_moments_are_those_of_the_step(sizes, changes):
    train, mesh = dataclasses.replace(TRAIN, **changes), MeshConfig(*sizes)
    program = build_step(MODEL, train, build_mesh(mesh), sequence_length=512, total_steps=9, num_languages=1)
    held = (program.abstract_state.params, program.abstract_state.optimizer_state)
    exact = sum(
        leaf.dtype.itemsize * int(jax.numpy.prod(jax.numpy.array(leaf.sharding.shard_shape(leaf.shape))))
        for leaf in jax.tree.leaves(held)
    )
    candidate = Candidate(mesh, "offload", 64, 1)  # which keeps no inputs of layers on the device
    assert RoughCost(MODEL, train, PACKING, TOPOLOGY).least_bytes(candidate) == pytest.approx(exact, rel=1e-3)


@settings(deadline=None)
@given(st.sampled_from(LEGAL))
def test_the_least_is_less_than_the_guess(candidate):
    assert 0 < COST.least_bytes(candidate) < COST.bytes(candidate)
    assert COST.seconds(candidate) > 0


@settings(deadline=None)
@given(st.sampled_from([c for c in LEGAL if c.accumulation > 1]))
def test_smaller_micro_batches_need_less_memory_and_no_less_time(candidate):
    larger = dataclasses.replace(candidate, accumulation=1)
    assert COST.bytes(candidate) < COST.bytes(larger) and COST.seconds(candidate) >= COST.seconds(larger)


def test_what_keeps_more_needs_more():
    for one in REMATS:
        for other in REMATS:
            kept = [COST.bytes(Candidate(MeshConfig(fsdp=8), remat, 64, 1)) for remat in (one, other)]
            assert COST.keeps_as_much(one, other) == (kept[0] >= kept[1])
