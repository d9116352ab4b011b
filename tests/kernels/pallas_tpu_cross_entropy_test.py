"""The TPU kernels against the oracle: emulated with race detection, on a mesh, and compiled for real chips."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.cross_entropy.api import linear_log_probability
from seallm_jax.kernels.cross_entropy.pallas_tpu import choose_blocks, pallas_tpu_log_probability
from seallm_jax.kernels.cross_entropy.reference import reference_log_probability
from seallm_jax.kernels.cross_entropy.tpu_kernels import Blocks

N, M, V = 512, 128, 384
BLOCKS = Blocks(256, 256, 128, 2**25)  # the last block of the matrix is half empty


def problem(seed, logical_size, rows=2, positions=N // 2, dtype=jnp.float32, vocabulary=V):
    """Hidden states, matrix, targets and the cotangents of the three results."""
    keys = jax.random.split(jax.random.key(seed), 4)
    hidden = jax.random.normal(keys[0], (rows, positions, M), dtype)
    targets = jax.random.randint(keys[2], (rows, positions), 0, logical_size)
    output = jax.random.normal(keys[1], (vocabulary, M), dtype)
    return hidden, output, targets, jax.random.normal(keys[3], (3, rows, positions))


def values_and_gradients(run, hidden, output, targets, cotangents):
    def values(hidden, output):
        result = run(hidden, output, targets)
        found = result.log_probability, result.logsumexp, result.entropy
        return tuple(x for x in found if x is not None), result.correct

    found, pullback, correct = jax.vjp(values, hidden, output, has_aux=True)
    return *found, correct, *pullback(tuple(cotangents[: len(found)]))


@functools.partial(jax.jit, static_argnames=("logical_size", "soft_cap", "entropy"))
def oracle(hidden, output, targets, cotangents, **switches):
    run = functools.partial(reference_log_probability, **switches)
    return values_and_gradients(run, hidden, output, targets, cotangents)


@functools.partial(jax.jit, static_argnames=("logical_size", "soft_cap", "entropy", "chunk", "blocks"))
def emulated(hidden, output, targets, cotangents, **switches):
    run = functools.partial(pallas_tpu_log_probability, **switches)
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(detect_races=True)):
        return values_and_gradients(run, hidden, output, targets, cotangents)


def assert_close(found, expected, tolerance=2e-5):
    assert len(found) == len(expected)
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        assert np.abs(x - y).max() <= tolerance * max(1.0, np.abs(y).max()), (i, np.abs(x - y).max())


def races_found() -> bool:
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    return interpret_pallas_call.races.races_found


@pytest.mark.parametrize(
    ("logical_size", "switches"),
    [(V, {}), (257, {"soft_cap": 3.0}), (300, {"soft_cap": 3.0, "entropy": True}), (1, {"entropy": True})],
    ids=str,
)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([0.01, 1.0]), zeros=st.sampled_from([0.0, 0.5, 1.0]))
def test_values_and_gradients_are_those_of_the_oracle(logical_size, switches, seed, scale, zeros):
    switches = {"logical_size": logical_size, "soft_cap": 0.0, "entropy": False} | switches
    hidden, output, targets, cotangents = problem(seed, logical_size)
    cotangents *= jax.random.uniform(jax.random.key(seed + 1), cotangents.shape) >= zeros  # weights of tokens
    inputs = scale * hidden, output, targets, cotangents
    expected = oracle(*inputs, **switches)
    found = emulated(*inputs, **switches, chunk=256, blocks=BLOCKS)
    if switches["soft_cap"]:  # where the cap flattens logits, which of two is larger is a matter of rounding
        found, expected = ([x for x in y if x.dtype != jnp.bool_] for y in (found, expected))
    assert_close(found, expected)
    assert not races_found()


def test_padded_rows_of_the_matrix_change_nothing_and_get_no_gradient():
    hidden, output, targets, cotangents = problem(0, 200)
    run = functools.partial(emulated, hidden, targets=targets, cotangents=cotangents, logical_size=200)
    found, other = (run(x, entropy=True, chunk=256, blocks=BLOCKS) for x in (output, output.at[200:].set(1e4)))
    assert_close(found, other, tolerance=0)
    assert not np.any(found[-1][200:])


@pytest.mark.parametrize("matrix_dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
def test_bfloat16_is_as_close_as_its_rounding(matrix_dtype):
    hidden, output, targets, cotangents = problem(0, V, dtype=jnp.bfloat16)
    inputs = 0.1 * hidden, output.astype(matrix_dtype), targets, cotangents
    found = emulated(*inputs, logical_size=V, chunk=256, blocks=BLOCKS)
    dtypes = jnp.float32, jnp.float32, jnp.bool_, jnp.bfloat16, matrix_dtype
    assert tuple(x.dtype for x in found) == dtypes
    expected = oracle(*inputs, logical_size=V)
    assert_close(found[:2] + found[3:], expected[:2] + expected[3:], tolerance=0.02)


@pytest.mark.parametrize("implementation", ["pallas_tpu", "chunked_xla"])
@pytest.mark.parametrize(
    "axes",
    [
        {"fsdp": 8},
        {"fsdp": 2, "tensor": 4},
        {"data": 2, "fsdp": 2, "tensor": 2},
        {"fsdp": 2, "context": 2, "tensor": 2},
    ],
    ids=str,
)
def test_the_mesh_changes_nothing(monkeypatch, implementation, axes):
    # the emulator with race detection cannot run collectives; the plain one can
    monkeypatch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
    mesh, rules = build_mesh(MeshConfig(**axes)), ShardingRules()
    # four pieces of 256 rows, of which the last is all padding
    hidden, output, targets, cotangents = problem(0, 700, rows=8, positions=256, vocabulary=1024)
    switches = {"logical_size": 700, "soft_cap": 3.0, "entropy": True}
    expected = oracle(hidden, output, targets, cotangents, **switches)

    @jax.jit
    def on_mesh(*inputs):
        options = switches | {"mesh": mesh, "implementation": implementation}
        return values_and_gradients(functools.partial(linear_log_probability, **options), *inputs)

    tokens = rules.sharding(mesh, "batch", "sequence")
    found = on_mesh(
        jax.device_put(hidden, rules.sharding(mesh, "batch", "sequence", None)),
        jax.device_put(output, rules.sharding(mesh, "vocabulary", "hidden")),
        jax.device_put(targets, tokens),
        cotangents,
    )
    assert_close(found, expected)
    assert found[-1].sharding.is_equivalent_to(rules.sharding(mesh, "vocabulary", "hidden"), 2)


def test_rows_that_do_not_divide_the_mesh_are_computed_on_all_devices(monkeypatch):
    monkeypatch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
    inputs = problem(0, V, rows=3, positions=128)
    run = functools.partial(linear_log_probability, logical_size=V, mesh=build_mesh(MeshConfig(fsdp=4, tensor=2)))
    for implementation in ("pallas_tpu", "chunked_xla"):
        on_mesh = functools.partial(values_and_gradients, functools.partial(run, implementation=implementation))
        assert_close(jax.jit(on_mesh)(*inputs), oracle(*inputs, logical_size=V))


def test_what_it_cannot_serve_is_refused():
    hidden, output, targets, _ = problem(0, V, positions=50)
    run = functools.partial(linear_log_probability, logical_size=V, implementation="pallas_tpu")
    with pytest.raises(SeallmError, match="because a device has 100 tokens, which is no multiple of 128"):
        run(hidden, output, targets)
    hidden, output, targets, _ = problem(0, V)
    with pytest.raises(SeallmError, match="because the hidden size is 64"):
        run(hidden[..., :64], output[:, :64], targets)


@given(
    kind=st.sampled_from(["TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite"]),
    rows=st.integers(1, 512).map(lambda x: 128 * x),
    hidden_size=st.sampled_from([128, 2048, 4096, 8192]),
)
def test_blocks_divide_the_rows_and_fit(kind, rows, hidden_size):
    blocks = choose_blocks(kind, rows, hidden_size, 2, 2)
    assert rows % blocks.hidden == 0 and blocks.hidden % blocks.tile == 0 and blocks.matrix % 128 == 0
    assert 4 * hidden_size * (blocks.hidden + blocks.matrix) < blocks.vmem_bytes


COMPILE = """
import math
from seallm_jax.kernels.cross_entropy.api import linear_log_probability

for tokens, M, V, dtype, axes, options in cases:
    mesh = build_mesh(MeshConfig(**axes), devices[: math.prod(axes.values())])
    def loss(hidden, output, targets):
        result = linear_log_probability(hidden, output, targets, **({"logical_size": V} | options), mesh=mesh)
        return (1e-4 * result.logsumexp**2 - result.log_probability).sum()

    rows, matrix = PartitionSpec(("data", "fsdp")), PartitionSpec("tensor", "fsdp")
    B = mesh.shape["fsdp"]
    shapes = [((B, tokens, M), dtype, rows), ((V, M), dtype, matrix), ((B, tokens), jnp.int32, rows)]
    arguments = [jax.ShapeDtypeStruct(x, y, sharding=NamedSharding(mesh, z)) for x, y, z in shapes]
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments)
    compiled, kernels = lowered.compile(), lowered.as_text().count("tpu_custom_call")
    found.append([kernels, compiled.memory_analysis().temp_size_in_bytes / (4 * tokens * V // mesh.shape["tensor"])])
"""
CHIPS = {
    "v4:2x2x1": [(2048, 2048, 131072, "bfloat16", {"fsdp": 1}, {})],
    "v5p:2x2x1": [(2048, 2048, 131072, "bfloat16", {"fsdp": 1}, {})],
    "tpu7x:2x2x1": [(2048, 2048, 131072, "bfloat16", {"fsdp": 1}, {})],
    "v5e:2x2": [(8192, 4096, 262144, "bfloat16", {"fsdp": 1}, {}), (512, 256, 8192, "float32", {"fsdp": 1}, {})],
    "v6e:2x2": [
        (8192, 4096, 262144, "bfloat16", {"fsdp": 1}, {"soft_cap": 30.0}),
        (1024, 2048, 32768, "bfloat16", {"fsdp": 2, "tensor": 2}, {"logical_size": 32001}),
    ],
}


@pytest.mark.parametrize("topology", CHIPS)
def test_compiles_for_real_chips_and_needs_little_memory(compile_for_tpu, topology):
    large, *small = compile_for_tpu(COMPILE, topology, CHIPS[topology])
    assert min(kernels for kernels, _ in (large, *small)) >= 2  # both
    assert large[1] < 0.05  # of the float32 logits
    assert all(share < 4 for _, share in small)
