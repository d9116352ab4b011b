from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, ModelConfig, RopeConfig
from seallm_jax.generation import sampler
from seallm_jax.models.layout import initialize

CONFIG = ModelConfig(
    vocabulary_size=60,
    padded_vocabulary_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_key_value_heads=2,
    head_size=8,
    initializer_range=0.3,
    max_positions=64,
)
PROMPTS = [[1, 5, 9, 4], [7], [3, 3, 8, 2, 2, 9, 11, 40, 41], [50, 51]]
generate = functools.partial(sampler.generate, maximum_new_tokens=12, compute_dtype=jnp.float32)


@pytest.fixture(scope="module")
def model():
    return initialize(CONFIG, seed=0)


@jax.jit
def logits(model, ids):
    """All at once, without a cache."""
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return model.logits(model(ids, positions, jnp.ones_like(ids), compute_dtype=jnp.float32))


@pytest.fixture(scope="module")
def greedy(model):
    return generate(model, PROMPTS)


def test_greedy_is_the_argmax_of_the_full_forward(model, greedy):
    ids = np.zeros((len(PROMPTS), 24), np.int32)
    for row, prompt in enumerate(PROMPTS):
        sequence = prompt + greedy[row]
        ids[row, : len(sequence)] = sequence
    expected = np.asarray(logits(model, ids).argmax(-1))
    for row, prompt in enumerate(PROMPTS):
        assert len(greedy[row]) == 12
        np.testing.assert_array_equal(greedy[row], expected[row, len(prompt) - 1 : len(prompt) + 11])


@pytest.mark.parametrize(
    "change",
    [
        {
            "sliding_window": 5,
            "local_layers": (True, False),
            "local_rope": RopeConfig(theta=100.0),
            "attention_soft_cap": 2.0,
            "logit_soft_cap": 3.0,
            "tie_embeddings": True,
            "embedding_scale": 5.0,
        },
        {"positions": "alibi", "norm": "layer", "num_heads": 6, "gated": False, "num_key_value_heads": 1},
    ],
    ids=["sliding window", "alibi"],
)
def test_prompts_of_different_lengths_keep_their_distances(change):
    model = initialize(dataclasses.replace(CONFIG, **change), seed=0)
    prompts = [PROMPTS[1], PROMPTS[2]]  # the first is padded, and then continued behind the padding
    found = generate(model, prompts)
    assert len({token for ids in found for token in ids}) > 3
    ids = np.zeros((2, 24), np.int32)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt) + 12] = prompt + found[row]
    expected = np.asarray(logits(model, ids).argmax(-1))
    for row, prompt in enumerate(prompts):
        np.testing.assert_array_equal(found[row], expected[row, len(prompt) - 1 : len(prompt) + 11])


def test_a_prompt_continues_as_it_would_alone(model, greedy):
    assert generate(model, PROMPTS[2:3]) == greedy[2:3]


def test_each_row_stops_at_its_own_end_token(model, greedy):
    stop = (greedy[0][3], greedy[3][0])
    found = generate(model, PROMPTS, eos_ids=stop)
    for row, ids in enumerate(greedy):
        end = next((i for i, token in enumerate(ids) if token in stop), len(ids))
        assert found[row] == ids[:end]
    assert found[3] == []


def test_the_limit_is_exact_and_shorter_limits_are_prefixes(model, greedy):
    assert generate(model, PROMPTS, maximum_new_tokens=1) == [ids[:1] for ids in greedy]
    assert generate(model, PROMPTS, maximum_new_tokens=7) == [ids[:7] for ids in greedy]


def test_few_shapes_compile(model, greedy):
    before = sampler.decode._cache_size()
    generate(model, [[1, 2], [3], [4, 5, 6]], maximum_new_tokens=9, temperature=0.5, top_p=0.7, seed=3)
    assert sampler.decode._cache_size() == before


def test_sampling_is_a_function_of_the_seed(model, greedy):
    sample = functools.partial(generate, model, PROMPTS, temperature=2.0)
    assert sample(seed=1) == sample(seed=1)
    assert sample(seed=1) != sample(seed=2)
    assert sample(seed=1, top_p=1e-6) == greedy
    assert generate(model, PROMPTS, temperature=1e-4) == greedy


def test_padded_ids_are_never_sampled(model):
    found = generate(model, PROMPTS, temperature=1e4, seed=5)  # close to uniform
    assert max(token for ids in found for token in ids) < CONFIG.vocabulary_size
    assert len({token for ids in found for token in ids}) > 20


def test_samples_follow_the_distribution(model):
    prompts = [[1, 5, 9]] * 2048
    drawn = np.array(generate(model, prompts, maximum_new_tokens=1, temperature=1.5, seed=0))[:, 0]
    expected = np.asarray(jax.nn.softmax(logits(model, jnp.array(prompts[:1]))[0, -1] / 1.5))
    found = np.bincount(drawn, minlength=128) / len(prompts)
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / len(prompts))


def test_repetition_is_penalized(model, greedy):
    found = generate(model, PROMPTS, repetition_penalty=1e9)
    for prompt, ids in zip(PROMPTS, found, strict=True):
        assert len(set(ids)) == len(ids) and not set(ids) & set(prompt)


def test_a_sharded_model_generates_the_same(greedy):
    mesh = build_mesh(MeshConfig(fsdp=2, tensor=4))
    assert generate(initialize(CONFIG, seed=0, mesh=mesh), PROMPTS, mesh=mesh) == greedy


def test_impossible_prompts_are_refused(model):
    assert generate(model, []) == []
    with pytest.raises(SeallmError, match="prompt 1 is empty"):
        generate(model, [[1], []])
    with pytest.raises(SeallmError, match="prompt 0 has 60 tokens and 12 more are asked for, but the model has 64"):
        generate(model, [[1] * 60])
    with pytest.raises(SeallmError, match="maximum_new_tokens is 0"):
        generate(model, PROMPTS, maximum_new_tokens=0)
