from __future__ import annotations

import jax.numpy as jnp
import pytest

from seallm_jax.generation.sampler import generate

torch = pytest.importorskip("torch")

PROMPTS = [[3, 140, 7, 20, 20, 9], [88], [1, 2, 3]]


@pytest.mark.parametrize("repetition_penalty", [1.0, 1.2])
def test_greedy_continuations_are_those_of_transformers(twins, repetition_penalty):
    options = {"repetition_penalty": repetition_penalty, "maximum_new_tokens": 16, "compute_dtype": jnp.float32}
    eos = generate(twins.ours, PROMPTS, **options)[0][5]  # a token that occurs, so that a row really stops
    found = generate(twins.ours, PROMPTS, eos_ids=(eos,), **options)
    for prompt, ids in zip(PROMPTS, found, strict=True):
        whole = twins.theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=16,
            do_sample=False,
            repetition_penalty=repetition_penalty,
            eos_token_id=eos,
            pad_token_id=0,
        )
        expected = whole[0, len(prompt) :].tolist()
        assert ids == [token for token in expected if token != eos]
