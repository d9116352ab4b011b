"""Products in 8 bits against the same rounding in float64, by numpy and ml_dtypes, and against exact products."""

from __future__ import annotations

import builtins
import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.layout import abstract_decoder, initialize
from seallm_jax.models.projection import Projection, multiply_in
from seallm_jax.models.quantization.quantized_product import quantized_product, warn_unless_faster

EQUATIONS = {  # equation: (input, kernel, the axes of each that are summed over)
    "btm,mhd->bthd": ((3, 5, 64), (64, 2, 24), (2,), (0,)),
    "bthd,hdm->btm": ((3, 5, 2, 24), (2, 24, 64), (2, 3), (0, 1)),
}
# largest number, and how it is rounded
ROUNDING = {
    "int8": (127.5, lambda x: np.clip(np.rint(x), -128, 127)),
    "fp8": (448.0, lambda x: x.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)),
    "e5m2": (57344.0, lambda x: x.astype(ml_dtypes.float8_e5m2).astype(np.float64)),
}
# relative error of products of normal numbers, in the root mean square
EXPECTED_ERROR = {"int8": 0.012, "fp8": 0.045}


def rounded(array, format, axes):
    """(codes, scales) in float64."""
    largest, rounding = ROUNDING[format]
    scales = np.abs(array).max(axis=axes, keepdims=True) / largest
    return rounding(array / np.where(scales, scales, 1)), scales


def signs(array, axes):
    """-1 where the largest number is negative: of int8, it would lie on the border of -127 and -128."""
    return np.where(array == -np.abs(array).max(axis=axes, keepdims=True), -1, 1)


def oracle(equation, x, kernel, d_y, format):
    """The product and the gradients of the input and the kernel, in float64."""
    inputs, result = equation.split("->")
    x_letters, k_letters = inputs.split(",")
    _, _, x_summed, k_summed = EQUATIONS[equation]
    (x_codes, x_scales), (k_codes, k_scales) = rounded(x, format, x_summed), rounded(kernel, format, k_summed)
    y = np.einsum(equation, x_codes * x_scales, k_codes * k_scales)
    gradient = d_y * k_scales.reshape([n for n in k_scales.shape if n > 1])
    outputs = tuple(axis for axis, letter in enumerate(result) if letter not in x_letters)
    g_codes, g_scales = rounded(gradient, {"int8": "int8", "fp8": "e5m2"}[format], outputs)
    d_x = np.einsum(f"{result},{k_letters}->{x_letters}", g_codes * g_scales, k_codes)
    return y, d_x, np.einsum(f"{x_letters},{result}->{k_letters}", x, d_y)


def error(found, expected):
    return np.sqrt(np.mean((np.asarray(found, np.float64) - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize("format", ["int8", "fp8"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_against_float64(equation, format):
    rng = np.random.default_rng(0)
    x_shape, k_shape, x_summed, k_summed = EQUATIONS[equation]
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in (x_shape, k_shape))
    x[0] *= 100  # tokens of other sizes have scales of their own, and so have outputs
    kernel[..., 0] *= 1000
    x[1, 1] = 0
    x, kernel = x * signs(x, x_summed), kernel * signs(kernel, k_summed)
    d_y = rng.normal(size=np.einsum(equation, x, kernel).shape)
    weighted = d_y * np.abs(kernel).max(axis=k_summed)  # the gradient that is rounded, but for a factor
    d_y = (d_y * signs(weighted, tuple(range(2, d_y.ndim)))).astype(np.float32)
    y, pullback = jax.jit(lambda *a: jax.vjp(lambda x, k: quantized_product(equation, x, k, format), *a))(x, kernel)
    expected = oracle(equation, *(np.asarray(a, np.float64) for a in (x, kernel, d_y)), format)
    for name, a, b in zip(("y", "d_x", "d_kernel"), (y, *pullback(d_y)), expected, strict=True):
        assert error(a, b) < 3e-4, name  # a number on the border of two codes goes to either, one in thousands
    assert not np.any(np.asarray(y)[1, 1])


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_how_far_from_exact(format):
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(4, 16, 256)), rng.normal(size=(256, 96))
    y = quantized_product("btm,mf->btf", *(jnp.asarray(a, jnp.float32) for a in (x, kernel)), format)
    found = error(y, np.einsum("btm,mf->btf", x, kernel))
    assert 0.3 * EXPECTED_ERROR[format] < found < EXPECTED_ERROR[format]
    half = quantized_product("btm,mf->btf", jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.float32), format)
    assert half.dtype == jnp.bfloat16 and error(half, np.asarray(y, np.float64)) < 0.5 * found + 0.01


@pytest.mark.parametrize(
    ("format", "forward", "backward"), [("int8", "i8,i8", "i8,i8"), ("fp8", "e4m3,e4m3", "e4m3,e5m2")]
)
def test_two_of_three_products_are_in_8_bits(format, forward, backward):
    names = {"int8": "i8", "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "bfloat16": "bf16", "float32": "f32"}

    def loss(x, kernel):
        return quantized_product("btm,mf->btf", x, kernel, format).astype(jnp.float32).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(jnp.ones((2, 3, 8), jnp.bfloat16), jnp.ones((8, 4)))
    products = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name == "dot_general"]
    found = [",".join(sorted(names[str(v.aval.dtype)] for v in e.invars)) for e in products]
    assert found == [forward, backward, "bf16,bf16"]
    sums = [str(e.outvars[0].aval.dtype) for e in products[:2]]
    assert sums == (["int32"] * 2 if format == "int8" else ["float32"] * 2)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _equations(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_every_projection_of_a_model_and_no_parameter(variants, name):
    """The layers' products, in place of float ones, over the same tree of parameters."""
    config = dataclasses.replace(variants[name], num_layers=2)
    plain, parameters = abstract_decoder(config)
    graph, same = abstract_decoder(config, matmul_dtype="int8")
    assert jax.tree.structure(parameters) == jax.tree.structure(same)
    ids = jnp.ones((1, 8), jnp.int32)

    def products(graph):
        run = lambda p: nnx.merge(graph, p)(ids, ids, ids, compute_dtype=jnp.float32)  # noqa: E731
        found = [e for e in _equations(jax.make_jaxpr(run)(parameters).jaxpr) if e.primitive.name == "dot_general"]
        return len([e for e in found if str(e.invars[0].aval.dtype) == "int8"]), len(found)

    assert products(graph) == (6 if name == "bloom" else 7, products(plain)[1])


def test_a_model_computes_nearly_the_same(variants):
    model = initialize(variants["llama"], seed=0)
    ids = jnp.arange(24)[None] % 90
    run = nnx.jit(lambda model: model(ids, ids, jnp.ones_like(ids), compute_dtype=jnp.float32))
    exact = run(model)
    multiply_in(model.layers, "int8")
    assert 1e-4 < error(run(model), np.asarray(exact, np.float64)) < 0.08


class Student(nnx.Module):
    """Two projections."""

    def __init__(self, seed):
        options = {"rngs": nnx.Rngs(seed), "param_dtype": jnp.float32}
        config = ModelConfig(initializer_range=0.15)
        self.up = Projection(config, "btm,mf->btf", (32, 64), **options)
        self.down = Projection(config, "btf,fm->btm", (64, 32), **options)

    def __call__(self, x):
        return self.down(jax.nn.gelu(self.up(x)))


def test_training_reaches_nearly_the_same_loss():
    x = jax.random.normal(jax.random.key(0), (8, 32, 32))
    wanted, optimizer, losses = Student(7)(x), optax.adam(3e-3), {}
    for format in ("none", "int8", "fp8"):
        student = Student(1)
        multiply_in(student, format)
        graph, start = nnx.split(student)

        def step(carry, _, graph=graph):
            parameters, state = carry
            loss, gradient = jax.value_and_grad(lambda p: jnp.mean((nnx.merge(graph, p)(x) - wanted) ** 2))(parameters)
            updates, state = optimizer.update(gradient, state, parameters)
            return (optax.apply_updates(parameters, updates), state), loss

        losses[format] = jax.lax.scan(step, (start, optimizer.init(start)), None, length=200)[1]
    first, last = losses["none"][0], losses["none"][-1]
    assert last < 0.05 * first
    np.testing.assert_allclose(losses["int8"][-1], last, rtol=0.01)
    np.testing.assert_allclose(losses["fp8"][-1], last, rtol=0.05)


def test_a_device_that_gains_nothing_is_told(caplog):
    tpu = dataclasses.make_dataclass("Tpu", [("device_kind", str), ("platform", str, "tpu")])
    warn_unless_faster("int8", tpu("TPU v5 lite"))
    warn_unless_faster("fp8", tpu("TPU7x"))
    assert not caplog.text
    warn_unless_faster("fp8", tpu("TPU v5 lite"))
    assert "matmul_dtype=fp8 rounds, and is no faster than none on TPU v5 lite" in caplog.text


def test_without_qwix(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "qwix":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SeallmError, match=r"matmul_dtype=int8 or fp8 needs qwix: pip install 'seallm_jax\[quant"):
        quantized_product("btm,mf->btf", jnp.ones((1, 2, 3)), jnp.ones((3, 4)), "int8")
