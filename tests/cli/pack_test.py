"""What decides whether rows are packed again, and what attention is told of them."""

import dataclasses

from seallm_jax.cli.pack import STAGE, rows_section
from seallm_jax.cli.training import for_rows
from seallm_jax.core.schema import KernelConfig, ObjectiveConfig, PackingConfig, RunConfig, TrainConfig


def packing(**values):
    return RunConfig(packing=PackingConfig(**values))


def test_the_number_of_processes_does_not_decide_what_the_rows_are():
    assert rows_section(packing(workers=7)) == rows_section(packing())
    assert STAGE.section(packing(workers=7)) == STAGE.section(packing())
    for values in ({"mode": "open"}, {"quality_bands": {"high": 0.5}}, {"mixed": {"low": ("km", "lo")}}):
        assert rows_section(packing(**values)) != rows_section(packing())


def test_attention_sees_the_anchor_where_rows_have_one():
    train = TrainConfig(kernels=KernelConfig("reference"))
    anchored = dataclasses.replace(train, kernels=KernelConfig("reference", anchor=True))
    assert for_rows(train, PackingConfig(mode="anchor")) == anchored
    assert for_rows(train, PackingConfig(mode="open")) == for_rows(train, PackingConfig()) == train
    preference = dataclasses.replace(train, objective=ObjectiveConfig("dpo"))
    assert for_rows(preference, PackingConfig(mode="anchor")) == preference
