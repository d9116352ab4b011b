"""Rotary positions (arXiv 2104.09864) and their extensions to longer texts.

Shape letters: B rows, T positions, H heads, D head size, R = D / 2 frequencies.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.core.schema import RopeConfig
from seallm_jax.kernels.precision import matmul_precision


class RotaryTable(NamedTuple):
    """Cosine and sine of the angle of each position and frequency.

    Attributes:
      cosine: float32 [B, T, R], times the attention factor.
      sine: the same.
    """

    cosine: jax.Array
    sine: jax.Array


def rotary_table(
    rope: RopeConfig, positions_BxT: jax.Array, segment_ids_BxT: jax.Array, *, head_size: int, max_positions: int
) -> RotaryTable:
    """The table for packed rows.

    Dynamic NTK depends on the length of the text. Here that is the length of each token's own document, as far as it
    has come, so that what lies beside it in a batch changes nothing. As in transformers, keys in a cache keep the
    rotation that they were written with while the text grows.

    Args:
      rope: kind of rotary positions.
      positions_BxT: int32 position of each token in its document.
      segment_ids_BxT: int32 document of each token.
      head_size: D.
      max_positions: the model's, for a `rope` that does not say what it was first trained on.
    """
    length = None
    if rope.type == "dynamic":
        same_BxTxT = segment_ids_BxT[:, :, None] == segment_ids_BxT[:, None, :]
        length = 1 + jnp.where(same_BxTxT, positions_BxT[:, None, :], 0).max(axis=-1)
    frequencies = rotary_frequencies(rope, head_size=head_size, max_positions=max_positions, length=length)
    angles_BxTxR = positions_BxT[..., None].astype(jnp.float32) * frequencies
    factor = attention_factor(rope)
    cosine_BxTxR, sine_BxTxR = jnp.cos(angles_BxTxR), jnp.sin(angles_BxTxR)
    if factor == 1.0:
        return RotaryTable(cosine_BxTxR, sine_BxTxR)
    return RotaryTable(factor * cosine_BxTxR, factor * sine_BxTxR)


def rotate(x_BxTxHxD: jax.Array, table: RotaryTable, *, by_product: bool = False) -> jax.Array:
    """Turns component i together with i + D / 2, the pairing of Hugging Face checkpoints, in float32.

    Args:
      x_BxTxHxD: queries or keys.
      table: the angles.
      by_product: exchange the halves by a matrix product, which a TPU does at next to no cost, and without which its
        compiler writes both halves to memory in float32. The values are the same.
    """
    if by_product:
        return _rotate_by_product(x_BxTxHxD, *table)
    cosine, sine = table.cosine[:, :, None], table.sine[:, :, None]
    first, second = jnp.split(x_BxTxHxD.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x_BxTxHxD.dtype)


@jax.custom_vjp
def _rotate_by_product(x_BxTxHxD: jax.Array, cosine_BxTxR: jax.Array, sine_BxTxR: jax.Array) -> jax.Array:
    size, dtype = x_BxTxHxD.shape[-1], x_BxTxHxD.dtype
    exchange_DxD = jnp.roll(jnp.eye(size, dtype=dtype), size // 2, axis=1)  # a single 1 in each row: exact
    exchanged_BxTxHxD = jnp.einsum(
        "bthd,de->bthe",
        x_BxTxHxD,
        exchange_DxD,
        precision=matmul_precision(dtype),
        preferred_element_type=jnp.float32,
    )
    cosine_BxTx1xD = jnp.concatenate([cosine_BxTxR, cosine_BxTxR], axis=-1)[:, :, None]
    sine_BxTx1xD = jnp.concatenate([-sine_BxTxR, sine_BxTxR], axis=-1)[:, :, None]
    return (x_BxTxHxD.astype(jnp.float32) * cosine_BxTx1xD + exchanged_BxTxHxD * sine_BxTx1xD).astype(dtype)


def _rotate_forward(x_BxTxHxD: jax.Array, *table: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _rotate_by_product(x_BxTxHxD, *table), table


def _rotate_backward(table: tuple[jax.Array, ...], gradient_BxTxHxD: jax.Array) -> tuple[jax.Array, None, None]:
    cosine_BxTxR, sine_BxTxR = table
    return _rotate_by_product(gradient_BxTxHxD, cosine_BxTxR, -sine_BxTxR), None, None


_rotate_by_product.defvjp(_rotate_forward, _rotate_backward)


def rotary_frequencies(
    rope: RopeConfig, *, head_size: int, max_positions: int, length: jax.Array | None = None
) -> np.ndarray | jax.Array:
    """Radians per position: float32 [R], in the order of operations of transformers, or [..., R] for dynamic lengths.

    Args:
      rope: kind of rotary positions.
      head_size: D.
      max_positions: taken where `rope.original_positions` is 0.
      length: int32 [...] lengths of texts, for the dynamic type only; None is a text that is not too long.
    """
    original = rope.original_positions or max_positions
    exponents_R = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    if rope.type == "dynamic" and length is not None:
        stretch = rope.factor * jnp.maximum(length, original).astype(jnp.float32) / original - (rope.factor - 1)
        theta = rope.theta * stretch ** (head_size / (head_size - 2))
        return 1.0 / theta[..., None] ** exponents_R
    periods_R = np.float32(rope.theta) ** exponents_R
    frequencies_R = np.float32(1.0) / periods_R
    match rope.type:
        case "linear":
            return frequencies_R / np.float32(rope.factor)
        case "llama3":
            return _llama3(rope, frequencies_R, original)
        case "yarn":
            return _yarn(rope, periods_R, head_size, original)
    return frequencies_R


def attention_factor(rope: RopeConfig) -> float:
    """What cosine and sine are multiplied by: 1, but for yarn (arXiv 2309.00071, section 3.4)."""
    if rope.type != "yarn":
        return 1.0
    if rope.attention_factor:
        return rope.attention_factor

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0

    if rope.mscale and rope.mscale_all_dim:
        return scale(rope.mscale) / scale(rope.mscale_all_dim)
    return scale(1.0)


def _llama3(rope: RopeConfig, frequencies_R: np.ndarray, original: int) -> np.ndarray:
    """Long wavelengths are divided by the factor, short ones kept, those between interpolated."""
    wavelengths_R = 2 * math.pi / frequencies_R
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    kept_R = (original / wavelengths_R - low) / (high - low)
    between_R = (1 - kept_R) * frequencies_R / rope.factor + kept_R * frequencies_R
    divided_R = np.where(wavelengths_R > original / low, frequencies_R / rope.factor, between_R)
    return np.where(wavelengths_R < original / high, frequencies_R, divided_R)


def _yarn(rope: RopeConfig, periods_R: np.ndarray, head_size: int, original: int) -> np.ndarray:
    """Dimensions that turn often are kept, those that turn seldom divided, with a linear ramp between."""

    def dimension(turns: float) -> float:
        return head_size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_size - 1)
    high += 0.001 if low == high else 0.0
    kept_R = 1 - np.clip((np.arange(head_size // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    return (1.0 / (rope.factor * periods_R)) * (1 - kept_R) + (1.0 / periods_R) * kept_R
