"""Greedy continuations with our cache against those of transformers with its own."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from random_models import TOLERANCE, config_values, few

from seallm_jax.generation.sampler import generate
from seallm_jax.models.families.registry import FAMILIES

torch = pytest.importorskip("torch")

PROMPTS = [[3, 140, 7, 20, 20, 9], [88], [1, 2, 3, 17, 90, 45, 33, 61, 77, 5, 149]]
NEW = 64


def continuation(theirs, prompt, **options) -> list[int]:
    """Of transformers, from a prompt alone."""
    with torch.no_grad():
        theirs(torch.tensor([[0]]))  # a short text makes dynamic rotary positions forget a longer one
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "attention_mask": torch.ones_like(ids)} | options
    return theirs.generate(ids, **options)[0, len(prompt) :].tolist()


def assert_same(theirs, prompt, found, expected) -> None:
    """The same ids, or at the first difference two that transformers holds for equal but for rounding."""
    if found == expected:
        return
    step = next(step for step, pair in enumerate(zip(found, expected, strict=True)) if len(set(pair)) > 1)
    with torch.no_grad():
        logits = theirs(torch.tensor([prompt + expected[:step]])).logits[0, -1].numpy()
    gap = logits[expected[step]] - logits[found[step]]
    assert gap < TOLERANCE * np.abs(logits).max(), f"step {step}: {found[step]} for {expected[step]}, {gap} below it"


@pytest.mark.parametrize("family", FAMILIES)
@few(2)
@given(data=st.data())
def test_greedy_continuations_are_those_of_transformers(make_twins, family, data):
    values = data.draw(config_values(family))
    values["max_position_embeddings"] = 96
    rope = values.get("rope_parameters", {})
    if rope.get("rope_type") == "dynamic":
        values["max_position_embeddings"], rope["factor"] = 24, 4.0  # a text that outgrows the model
    twins = make_twins(family, values)
    note(str(twins.ours.config))
    found = generate(twins.ours, PROMPTS, maximum_new_tokens=NEW, compute_dtype=jnp.float32)
    for prompt, ids in zip(PROMPTS, found, strict=True):
        assert len(ids) == NEW
        assert_same(twins.theirs, prompt, ids, continuation(twins.theirs, prompt, max_new_tokens=NEW))


@pytest.mark.parametrize("twins", [{"num_key_value_heads": 2}], ids=["grouped queries"], indirect=True)
@pytest.mark.parametrize("repetition_penalty", [1.0, 1.2])
def test_rows_stop_and_penalties_apply_as_in_transformers(twins, repetition_penalty):
    options = {"repetition_penalty": repetition_penalty, "maximum_new_tokens": 16, "compute_dtype": jnp.float32}
    eos = generate(twins.ours, PROMPTS, **options)[0][5]  # a token that occurs, so that a row really stops
    found = generate(twins.ours, PROMPTS, eos_ids=(eos,), **options)
    for prompt, ids in zip(PROMPTS, found, strict=True):
        expected = continuation(
            twins.theirs,
            prompt,
            max_new_tokens=16,
            repetition_penalty=repetition_penalty,
            eos_token_id=eos,
            pad_token_id=0,
        )
        assert ids == [token for token in expected if token != eos]
