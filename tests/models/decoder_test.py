from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.cache import KeyValueCache
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import initialize

CONFIG = ModelConfig(
    vocabulary_size=100,
    padded_vocabulary_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_key_value_heads=2,
    head_size=8,
    initializer_range=0.3,  # attention far from uniform
)
T = 16


@pytest.fixture(scope="module")
def model() -> Decoder:
    return initialize(CONFIG, seed=0)


@functools.partial(jax.jit, static_argnames=("graph", "remat"))
def hidden_and_gradients(graph, parameters, tokens, positions, segments, cotangent, *, remat="none"):
    def run(parameters):
        return nnx.merge(graph, parameters)(tokens, positions, segments, compute_dtype=jnp.float32, remat=remat)

    hidden, pullback = jax.vjp(run, parameters)
    return hidden, pullback(cotangent)[0]


def run(model: Decoder, tokens, positions, segments, cotangent=None, **options):
    cotangent = jnp.zeros((*tokens.shape, CONFIG.hidden_size)) if cotangent is None else cotangent
    return hidden_and_gradients(*nnx.split(model), tokens, positions, segments, cotangent, **options)


def assert_close(found, expected, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(y).max())


def row_of(lengths: list[int], rng) -> dict[str, np.ndarray]:
    """Documents of these lengths, cut at T, then padding with random ids."""
    lengths = np.diff(np.minimum(np.cumsum([0, *lengths]), T))
    padding = T - lengths.sum()
    return {
        "tokens": rng.integers(0, 100, T),
        "positions": np.concatenate([np.arange(n) for n in [*lengths, padding]]),
        "segments": np.repeat([*range(1, len(lengths) + 1), 0], [*lengths, padding]),
        "cotangent": rng.normal(size=(T, CONFIG.hidden_size)).astype(np.float32),
    }


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.lists(st.integers(1, T), max_size=4), min_size=2, max_size=2), seed=st.integers(0, 2**20))
def test_packed_documents_are_as_documents_alone(model, rows, seed):
    rng = np.random.default_rng(seed)
    packed = {k: np.stack(v) for k, v in _transpose([row_of(lengths, rng) for lengths in rows]).items()}
    alone = {name: np.zeros((8, *values.shape[1:]), values.dtype) for name, values in packed.items()}
    places = [(row, s) for row in range(2) for s in range(1, packed["segments"][row].max() + 1)]
    for number, (row, segment) in enumerate(places):
        inside = packed["segments"][row] == segment
        for name, values in alone.items():
            values[number, : inside.sum()] = 1 if name == "segments" else packed[name][row, inside]
    packed["cotangent"][packed["segments"] == 0] = 0

    found, gradients = run(model, **packed)
    expected, expected_gradients = run(model, **alone)
    for number, (row, segment) in enumerate(places):
        inside = packed["segments"][row] == segment
        assert_close(found[row, inside], expected[number, : inside.sum()])
    # Sums over few terms may cancel to zero, so gradients are held to the size of the largest one.
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected_gradients))
    for x, y in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-5 * largest)


def _transpose(rows: list[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_changing_one_document_leaves_the_others_bit_equal(model):
    rng = np.random.default_rng(0)
    row = {name: np.stack([values] * 2) for name, values in row_of([5, 6, 3], rng).items()}
    before, _ = run(model, **row)
    row["tokens"] = np.where(row["segments"] == 1, (row["tokens"] + 7) % 100, row["tokens"])
    row["positions"] = np.where(row["segments"] == 1, row["positions"] + 3, row["positions"])
    after, _ = run(model, **row)
    others = row["segments"] > 1
    np.testing.assert_array_equal(before[others], after[others])
    assert np.all(np.any(before[row["segments"] == 1] != after[row["segments"] == 1], axis=-1))


def test_recomputing_layers_changes_nothing(model):
    row = {name: np.stack([values] * 2) for name, values in row_of([5, 6], np.random.default_rng(0)).items()}
    assert_close(run(model, **row, remat="full"), run(model, **row), 1e-6)


@pytest.mark.parametrize("pieces", [(10, 1, 1), (12,)], ids=str)
def test_the_cache_continues_prompts_of_different_lengths(model, pieces):
    rng = np.random.default_rng(0)
    lengths = np.array([9, 12])
    tokens = rng.integers(0, 100, (2, 12))
    index = np.tile(np.arange(12), (2, 1))
    segments = (index < lengths[:, None]).astype(np.int32)
    forward = jax.jit(functools.partial(Decoder.__call__, compute_dtype=jnp.float32))
    whole = forward(model, tokens, index, segments)

    cache = KeyValueCache.empty(CONFIG, rows=2, slots=20, dtype=jnp.float32)
    found = []
    for start, size in zip(np.cumsum([0, *pieces]), pieces, strict=False):
        here = (slice(None), slice(start, start + size))
        hidden, cache = forward(model, tokens[here], index[here], segments[here], cache=cache)
        found.append(hidden)
    assert cache.length == 12
    np.testing.assert_array_equal(cache.segment_ids[:, :12], segments)
    assert_close(np.concatenate(found, axis=1)[segments > 0], whole[segments > 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_matrix_products_are_in_the_compute_dtype_and_nothing_is_cast_on_the_way(model, dtype):
    tokens = jnp.zeros((1, T), jnp.int32)
    jaxpr = jax.make_jaxpr(lambda model: model(tokens, tokens, tokens + 1, compute_dtype=dtype))(model)
    equations = list(_equations(jaxpr.jaxpr))
    products = [equation for equation in equations if equation.primitive.name == "dot_general"]
    assert len(products) == 9  # q, k, v, scores, sum of values, output, gate, up, down
    assert {variable.aval.dtype for equation in products for variable in equation.invars} == {jnp.dtype(dtype)}
    for equation in equations:
        if equation.primitive.name in ("exp", "rsqrt", "cos", "sin"):
            assert equation.invars[0].aval.dtype == jnp.float32
        if dtype == jnp.float32 and equation.primitive.name == "convert_element_type":
            assert equation.params["new_dtype"] != jnp.bfloat16


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_padded_columns_have_no_logits(model):
    logits = model.logits(jnp.ones((1, 2, CONFIG.hidden_size)))
    assert logits.shape == (1, 2, 128) and logits.dtype == jnp.float32
    assert np.isfinite(logits[..., :100]).all() and np.isneginf(logits[..., 100:]).all()


def test_vocabulary_sizes_must_be_filled_in():
    with pytest.raises(SeallmError, match="model.vocabulary_size is 0"):
        Decoder(ModelConfig(), rngs=nnx.Rngs(0))
