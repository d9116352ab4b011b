from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.kernels.precision import matmul_precision
from seallm_jax.kernels.selection import select_implementation


def test_auto_takes_the_default_and_says_so_once(caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert select_implementation("some operator", "auto", ("a", "b"), default="b") == "b"
    assert [record.message for record in caplog.records] == ["some operator: b (auto was asked for)"]


def test_a_name_is_taken_or_refused_but_never_replaced():
    assert select_implementation("some operator", "a", ("a", "b"), default="b") == "a"
    with pytest.raises(SeallmError, match="some operator has no implementation 'c'; use auto or one of a, b"):
        select_implementation("some operator", "c", ("a", "b"), default="b")


def test_float32_products_are_not_rounded():
    assert matmul_precision(jnp.float32) == jax.lax.Precision.HIGHEST
    assert matmul_precision(jnp.bfloat16) == jax.lax.Precision.DEFAULT
