"""Random models of every family on random meshes: a step is that of one device, or the refusal names what would be.

`pytest tests/training/mesh_fit_test.py --hypothesis-profile=thorough` draws several of each of the families.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, note, settings
from hypothesis import strategies as st
from random_models import config_values, few
from small_job import LANGUAGES, FakeSource

from seallm_jax.core.errors import UsageError
from seallm_jax.core.mesh import AXES, build_mesh
from seallm_jax.core.schema import MeshConfig, ModelConfig, TrainConfig
from seallm_jax.models.families.registry import FAMILIES
from seallm_jax.models.layout import initialize
from seallm_jax.training.distributed import global_batch, local_rows
from seallm_jax.training.mesh_fit import check_fit
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import build_step

ROWS = 8
EIGHT = [sizes for sizes in np.ndindex(9, 9, 9, 9) if math.prod(sizes) == 8]
THOROUGH = settings.default.max_examples >= 1000
SHORT = {"xla_backend_optimization_level": 0}  # of compilation
needs_eight = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")


def one_step(model: ModelConfig, axes: tuple[int, ...], length: int) -> np.ndarray:
    """Loss, gradient norm, and those of the groups of parameters."""
    mesh = build_mesh(MeshConfig(*axes), jax.devices()[: math.prod(axes)])
    train = TrainConfig(batch_rows=ROWS, compute_dtype="float32")
    program = build_step(model, train, mesh, sequence_length=length, total_steps=2, num_languages=len(LANGUAGES))
    params = nnx.state(initialize(model, seed=0, mesh=mesh))
    state = TrainState.create(params, program.optimizer, shardings_of(program.abstract_state))
    rows = local_rows(program.abstract_batch)
    batch = next(FakeSource(ROWS, ROWS, sequence_length=length).batches(0, rows))
    batch = global_batch(batch, rows, program.abstract_batch)
    _, metrics = program.run.lower(state, batch).compile(SHORT)(state, batch)
    return np.array([metrics.sums.loss / metrics.sums.count, metrics.gradient_norm, *metrics.group_norms.values()])


def draw_model(data, family: str) -> ModelConfig:
    """A small model, its sizes such that there are meshes that it fits, and some that it does not."""
    shape = FAMILIES[family].config_from_huggingface(data.draw(config_values(family)))
    heads, key_heads = data.draw(st.sampled_from([(4, 4), (4, 2), (2, 1), (8, 2), (6, 6), (6, 3)]))
    if family == "bloom":
        key_heads = heads
    return dataclasses.replace(
        shape,
        hidden_size=data.draw(st.sampled_from([16, 24])),
        intermediate_size=data.draw(st.sampled_from([48, 36])),
        num_heads=heads,
        num_key_value_heads=key_heads,
        head_size=4,
        vocabulary_size=120,
        padded_vocabulary_size=384,
    )


def refusal(model: ModelConfig, axes: tuple[int, ...], length: int) -> str:
    mesh = build_mesh(MeshConfig(*axes), jax.devices()[: math.prod(axes)])
    try:
        check_fit(model, TrainConfig(batch_rows=ROWS), length, mesh)
    except UsageError as error:
        return str(error)
    return ""


@needs_eight
@pytest.mark.parametrize("family", FAMILIES if THOROUGH else ("bloom",))
@few(1)
@given(data=st.data())
def test_a_step_on_a_mesh_that_fits_is_that_of_one_device(family, data):
    model, length = draw_model(data, family), 24
    fitting = [axes for axes in EIGHT if not refusal(model, axes, length)]
    split = [axes for axes in fitting if axes[0] * axes[1] < 8]  # more than rows
    axes = data.draw(st.sampled_from(split))
    note(f"{dict(zip(AXES, axes, strict=True))}")
    np.testing.assert_allclose(one_step(model, axes, length), one_step(model, (1, 1, 1, 1), length), rtol=3e-5)


@needs_eight
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_what_is_refused_names_what_fits(data):
    model = draw_model(data, data.draw(st.sampled_from(sorted(FAMILIES))))
    axes, length = data.draw(st.sampled_from(EIGHT)), data.draw(st.sampled_from([24, 20, 7]))
    message, tensor = refusal(model, axes, length), axes[AXES.index("tensor")]
    fits = {
        "sequence_length": length % axes[2] == 0,
        "num_heads": model.num_heads % tensor == 0,
        "num_key_value_heads": math.gcd(model.num_key_value_heads, tensor) in (tensor, model.num_key_value_heads),
        "intermediate_size": model.intermediate_size % tensor == 0,
    }
    assert bool(message) == (not all(fits.values()))
    if not message:
        return
    assert "\n" not in message
    culprit = next(name for name, good in fits.items() if not good)
    assert f"{culprit} is " in message or f"{culprit} = " in message
    for offered in re.findall(r"\d+", re.split("such as|use ", message)[1]):
        if culprit == "sequence_length":
            assert not refusal(model, axes, int(offered)) or not all([*fits.values()][1:])
        else:
            assert not refusal(model, (1, 1, 1, int(offered)), length)


@needs_eight
def test_a_hidden_size_that_does_not_split_is_told(caplog):
    mesh = build_mesh(MeshConfig(), jax.devices()[:8])
    model = ModelConfig(hidden_size=20, padded_vocabulary_size=128)
    with caplog.at_level(logging.WARNING):
        check_fit(model, TrainConfig(batch_rows=8), 16, mesh)
    assert "hidden_size = 20 does not split: each holds all parameters" in caplog.text and "5 or 10" in caplog.text
