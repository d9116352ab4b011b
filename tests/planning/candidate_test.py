"""What a search may choose from."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib

import pytest

from seallm_jax.core.config import load_config
from seallm_jax.core.schema import MeshConfig, ModelConfig, PackingConfig, StageConfig, TrainConfig
from seallm_jax.planning.candidate import Candidate, candidates, divisors, meshes

CONFIG = pathlib.Path(__file__).parent.parent.parent / "configs" / "llama2_7b.py"
MODEL = ModelConfig(hidden_size=96, intermediate_size=256, num_heads=8, num_key_value_heads=4)
TRAIN, PACKING = TrainConfig(batch_rows=32), PackingConfig(sequence_length=512)


def test_meshes_are_all_that_divide():
    every = itertools.product(range(1, 33), repeat=4)
    legal = [
        sizes
        for sizes in every
        if math.prod(sizes) == 32 and 96 % sizes[1] == 0 and 4 % sizes[2] == 0 and 8 % sizes[3] == 0
    ]
    assert sorted(meshes(MODEL, 512, 32)) == sorted(legal)


def test_slices_are_spanned_by_data_or_fsdp():
    found = list(meshes(MODEL, 512, 32, slices=4))
    assert found and all(data % 4 == 0 or fsdp % 4 == 0 for data, fsdp, _, _ in found)


def test_candidates_split_evenly_and_are_all_different():
    found = list(candidates(MODEL, TRAIN, PACKING, MeshConfig(), 8))
    assert len(set(found)) == len(found)
    for candidate in found:
        sizes = (candidate.mesh.data, candidate.mesh.fsdp, candidate.mesh.context, candidate.mesh.tensor)
        assert math.prod(sizes) == 8
        assert candidate.batch_rows == candidate.accumulation * candidate.shards * candidate.rows_on_a_device
        assert candidate.rows_on_a_device >= 1 and candidate.batch_rows in (32, 64, 128)
        # a larger batch in micro-batches that the own rows can be split into would be no faster
        assert candidate.batch_rows == 32 or candidate.batch_rows // candidate.accumulation > 32
    own = {(c.accumulation, c.rows_on_a_device) for c in found if c.batch_rows == 32 and c.shards == 8}
    assert own == {(4, 1), (2, 2), (1, 4)}


def test_rows_of_curriculum_stages_stay_whole_micro_batches():
    stages = (StageConfig(tokens=1000, batch_rows=24),)
    found = list(
        candidates(MODEL, dataclasses.replace(TRAIN, curriculum=stages, accumulation=4), PACKING, MeshConfig(), 8)
    )
    assert found and all(24 % (c.batch_rows // c.accumulation) == 0 and c.batch_rows == 32 for c in found)


def test_overrides_make_the_config_the_candidate():
    config = load_config(CONFIG)
    assert config.pretrain is not None
    first = Candidate(MeshConfig(fsdp=256), config.pretrain.remat, config.pretrain.batch_rows, 1)
    other = Candidate(MeshConfig(data=2, fsdp=64, context=1, tensor=2), "attention", 512, 2)
    changed = load_config(CONFIG, other.overrides("pretrain", first))
    assert changed.mesh == other.mesh and changed.pretrain == other.applied(config.pretrain)
    assert first.overrides("pretrain", first) == []
    assert other.name == "data=2 fsdp=64 tensor=2, attention, 512 rows as 2 x 2"


@pytest.mark.parametrize(("number", "expected"), [(1, [1]), (12, [1, 2, 3, 4, 6, 12])])
def test_divisors(number, expected):
    assert divisors(number) == expected
