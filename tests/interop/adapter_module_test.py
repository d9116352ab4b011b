from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.adapter_module import adapter_modules
from seallm_jax.models.families.registry import FAMILIES
from seallm_jax.models.families.weight import join

SHAPE = ModelConfig(
    vocabulary_size=11,
    padded_vocabulary_size=16,
    hidden_size=6,
    intermediate_size=10,
    num_layers=2,
    num_heads=3,
    num_key_value_heads=3,
    head_size=4,
)


def shape_of(family: str) -> ModelConfig:
    if family == "bloom":
        return dataclasses.replace(SHAPE, family=family, gated=False, positions="alibi")
    return dataclasses.replace(SHAPE, family=family)


def draw_factors(module, config, rank, rng):
    """Our lora_a and lora_b of one layer, by target, and the change of the kernel that they are."""
    factors, changes = {}, {}
    for target, weight in module.kernels.items():
        sizes = weight.sizes(config)
        into = weight.ours[: 2 if target == "output" else 1] if target != "head" else "M"
        out = "".join(letter for letter in weight.ours if letter not in into)
        a = rng.integers(-3, 4, [*(sizes[letter] for letter in into), rank]).astype(np.float32)
        b = rng.integers(-3, 4, [rank, *(sizes[letter] for letter in out)]).astype(np.float32)
        factors[target] = a, b
        changes[target] = np.einsum(f"{into}r,r{out}->{weight.ours}", a, b)
    return factors, changes


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=st.integers(0, 2**32 - 1), rank=st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_their_product_is_our_change_of_the_checkpoint(family, seed, rank):
    config, rng = shape_of(family), np.random.default_rng(seed)
    modules = adapter_modules(config)
    assert {target for module in modules for target in module.kernels} >= {"query", "output", "down", "embedding"}
    for module in modules:
        factors, changes = draw_factors(module, config, rank, rng)
        tensor = join(list(module.kernels.values()), list(changes.values()), config)
        a, b = module.to_peft(factors, config, shared=len(factors) == 1)
        assert (a.shape[1], b.shape[0]) == module.shape(config)
        product = b @ a
        np.testing.assert_array_equal(product.T if module.is_embedding else product, tensor)

        found = module.from_peft(a, b, config)
        for target, (our_a, our_b) in factors.items():
            if our_b.any(axis=tuple(range(1, our_b.ndim))).all():  # no column is lost
                np.testing.assert_array_equal(found[target][0], our_a)
                np.testing.assert_array_equal(found[target][1], our_b)


def test_a_shared_matrix_stays_one():
    config = shape_of("bloom")
    (module,) = [module for module in adapter_modules(config) if len(module.kernels) > 1]
    factors, _ = draw_factors(module, config, 2, np.random.default_rng(0))
    a = factors["query"][0]
    factors = {target: (a, b) for target, (_, b) in factors.items()}
    shared, apart = module.to_peft(factors, config), module.to_peft(factors, config, shared=False)
    assert shared[0].shape == (2, 6) and apart[0].shape == (6, 6)
    np.testing.assert_array_equal(shared[1] @ shared[0], apart[1] @ apart[0])
    untouched = module.from_peft(shared[0], np.zeros_like(shared[1]), config)
    assert untouched.keys() == {"query", "key", "value"}


def test_rows_that_pad_the_vocabulary_are_left_out():
    config = shape_of("llama")
    for module in adapter_modules(config):
        if module.is_embedding:
            a, b = module.to_peft({"embedding": (np.ones((16, 2)), np.ones((2, 6)))}, config)
            assert a.shape == (2, 11) and b.shape == (6, 2)
        elif "head" in module.kernels:
            a, b = module.to_peft({"head": (np.ones((6, 2)), np.ones((2, 16)))}, config)
            assert a.shape == (2, 6) and b.shape == (11, 2)
