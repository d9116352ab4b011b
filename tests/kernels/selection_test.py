from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.kernels.precision import matmul_precision
from seallm_jax.kernels.selection import device_of, select_implementation


def test_auto_takes_the_first_that_can_serve_and_says_why_once(caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            obstacles = {"a": None, "b": "it is raining", "c": None}
            assert select_implementation("some operator", "auto", obstacles, ["b", "c"]) == "c"
        assert select_implementation("some operator", "auto", dict.fromkeys("abc"), ["b", "c"]) == "b"
    assert [record.message for record in caplog.records] == [
        "some operator: c (auto was asked for; not b: it is raining)",
        "some operator: b (auto was asked for)",
    ]


def test_a_name_is_taken_or_refused_but_never_replaced():
    obstacles = {"a": None, "b": "it is raining"}
    assert select_implementation("some operator", "a", obstacles, ["b", "a"]) == "a"
    with pytest.raises(SeallmError, match="some operator has no implementation 'c'; use auto or one of a, b"):
        select_implementation("some operator", "c", obstacles, ["a"])
    with pytest.raises(SeallmError, match="some operator: b cannot serve this call, because it is raining; use auto"):
        select_implementation("some operator", "b", obstacles, ["a"])


def test_the_device_is_one_of_the_mesh():
    devices = jax.devices()[4:6]
    assert device_of(None) == jax.devices()[0]
    assert device_of(build_mesh(MeshConfig(fsdp=2), devices)) == devices[0]


def test_float32_products_are_not_rounded():
    assert matmul_precision(jnp.float32) == jax.lax.Precision.HIGHEST
    assert matmul_precision(jnp.bfloat16) == jax.lax.Precision.DEFAULT
