from __future__ import annotations

import dataclasses
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
from seallm_jax.kernels.cross_entropy.api import linear_log_probability
from seallm_jax.models.cache import KeyValueCache
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import abstract_decoder, initialize, path_name

ROWS, T, M = 8, 16, 32


@pytest.fixture(scope="module")
def model(variants) -> Decoder:
    return initialize(variants["llama"], seed=0)


@pytest.fixture(scope="module")
def varied(variant) -> Decoder:
    """A decoder with norms and biases that are far from doing nothing."""
    rng = np.random.default_rng(0)

    def disturb(path, leaf):
        small = path_name(path).endswith((".scale", ".bias"))
        return leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) if small else leaf

    graph, parameters = nnx.split(initialize(variant, seed=0))
    return nnx.merge(graph, jax.tree_util.tree_map_with_path(disturb, parameters))


@functools.partial(jax.jit, static_argnames=("graph", "remat"))
def hidden_and_gradients(graph, parameters, tokens, positions, segments, cotangent, *, remat="none"):
    def run(parameters):
        return nnx.merge(graph, parameters)(tokens, positions, segments, compute_dtype=jnp.float32, remat=remat)

    hidden, pullback = jax.vjp(run, parameters)
    return hidden, pullback(cotangent)[0]


def run(model: Decoder, tokens, positions, segments, cotangent=None, **options):
    """Hidden states of these rows, and gradients. Always of ROWS rows, so that each model compiles once."""
    cotangent = np.zeros((*tokens.shape, M), np.float32) if cotangent is None else cotangent
    rows = [np.pad(x, [(0, ROWS - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in (tokens, positions, segments, cotangent)]
    hidden, gradients = hidden_and_gradients(*nnx.split(model), *rows, **options)
    return np.asarray(hidden)[: len(tokens)], gradients


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
        "cotangent": rng.normal(size=(T, M)).astype(np.float32),
    }


@settings(max_examples=8, deadline=None)
@given(rows=st.lists(st.lists(st.integers(1, T), max_size=4), min_size=2, max_size=2), seed=st.integers(0, 2**20))
def test_packed_documents_are_as_documents_alone(varied, rows, seed):
    rng = np.random.default_rng(seed)
    packed = {k: np.stack(v) for k, v in _transpose([row_of(lengths, rng) for lengths in rows]).items()}
    alone = {name: np.zeros((ROWS, *values.shape[1:]), values.dtype) for name, values in packed.items()}
    places = [(row, s) for row in range(2) for s in range(1, packed["segments"][row].max() + 1)]
    for number, (row, segment) in enumerate(places):
        inside = packed["segments"][row] == segment
        for name, values in alone.items():
            values[number, : inside.sum()] = 1 if name == "segments" else packed[name][row, inside]
    packed["cotangent"][packed["segments"] == 0] = 0

    found, gradients = run(varied, **packed)
    expected, expected_gradients = run(varied, **alone)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, gradients)))
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


def test_decoding_with_a_cache_is_as_without(varied):
    prompt, new = np.array([3, 8]), 6  # a padded prompt of 8 slots, then one token a step
    tokens = np.random.default_rng(0).integers(0, 100, (2, T))
    whole, _ = run(varied, tokens, np.tile(np.arange(T), (2, 1)), np.ones((2, T), np.int32))

    forward = jax.jit(functools.partial(Decoder.__call__, compute_dtype=jnp.float32))
    index = np.tile(np.arange(8), (2, 1))
    inside = (index < prompt[:, None]).astype(np.int32)
    cache = KeyValueCache.empty(varied.config, rows=2, slots=8 + new, dtype=jnp.float32)
    hidden, cache = forward(varied, tokens[:, :8], index, inside, cache=cache)
    assert_close(np.asarray(hidden)[inside > 0], whole[:, :8][inside > 0])
    for step in range(new):
        position = (prompt + step)[:, None]
        row = np.arange(2)[:, None]
        hidden, cache = forward(varied, tokens[row, position], position, np.ones((2, 1), np.int32), cache=cache)
        assert_close(hidden, whole[row, position])
    assert cache.length == 8 + new


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
    logits = model.logits(jnp.ones((1, 2, M)))
    assert logits.shape == (1, 2, 128) and logits.dtype == jnp.float32
    assert np.isfinite(logits[..., :100]).all() and np.isneginf(logits[..., 100:]).all()


def test_logits_are_capped_where_the_loss_caps_them(variants):
    capped = initialize(variants["gemma 2"], seed=0)
    hidden = jax.random.normal(jax.random.key(0), (1, 3, M)) * 3
    plain = np.einsum("btm,vm->btv", hidden, capped.output_matrix())[..., :100]
    assert np.abs(plain).max() > 5
    np.testing.assert_allclose(capped.logits(hidden)[..., :100], 3 * np.tanh(plain / 3), rtol=1e-5, atol=1e-5)
    target = jnp.array([[1, 2, 3]])
    found = linear_log_probability(hidden, capped.output_matrix(), target, logical_size=100, soft_cap=3.0)
    expected = jnp.take_along_axis(jax.nn.log_softmax(capped.logits(hidden)), target[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found.log_probability, expected, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "rounded"), [(jnp.float32, np.float32(3072**0.5)), (jnp.bfloat16, 55.5)])
def test_embeddings_are_scaled_in_the_compute_dtype(variants, dtype, rounded):
    graph, parameters = abstract_decoder(dataclasses.replace(variants["gemma 2"], embedding_scale=3072**0.5))
    tokens = jax.ShapeDtypeStruct((1, T), jnp.int32)
    jaxpr = jax.make_jaxpr(lambda p, t: nnx.merge(graph, p)(t, t, t, compute_dtype=dtype))(parameters, tokens)
    factors = [x.val for equation in _equations(jaxpr.jaxpr) for x in equation.invars if hasattr(x, "val")]
    assert any(factor.dtype == dtype and factor == rounded for factor in factors if hasattr(factor, "dtype"))


def test_vocabulary_sizes_must_be_filled_in():
    with pytest.raises(SeallmError, match="model.vocabulary_size is 0"):
        Decoder(ModelConfig(), rngs=nnx.Rngs(0))
