"""Embedding rows for the new tokens of an extended vocabulary."""

from __future__ import annotations

from typing import Literal

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.extend import Extension

NOISE = 0.02  # of the old rows' standard deviation, per column


def initialize_rows(
    embedding_VxM: np.ndarray,
    extension: Extension,
    method: Literal["mean", "global_mean"] = "mean",
    *,
    padded_size: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The embedding (or output) matrix for the extended vocabulary.

    Old rows stay bit for bit; rows that the base model padded beyond its tokenizer are dropped, since the new ids take
    their places; padding rows are zero.

    Args:
      embedding_VxM: float32, V >= the base tokenizer's size.
      extension: tells which old tokens each new one is made of.
      method: `mean` is the mean of the old rows of the base's ids for its text; `global_mean` is the mean of
        all old rows with a little Gaussian noise, so that new rows differ.
      padded_size: rows of the result; None for none beyond the tokenizer's.
      seed: of the noise.

    Returns:
      float32 [padded_size, M].

    Raises:
      SeallmError: a matrix that does not fit the base tokenizer, or a padded size below the extended vocabulary.
    """
    base, size = extension.base_size, extension.tokenizer.size
    padded_size = size if padded_size is None else padded_size
    if embedding_VxM.ndim != 2 or embedding_VxM.shape[0] < base:
        raise SeallmError(f"an embedding of shape {embedding_VxM.shape} does not hold the base tokenizer's {base} rows")
    if padded_size < size:
        raise SeallmError(f"padded vocabulary size {padded_size} is below the extended tokenizer's {size}")
    if method not in ("mean", "global_mean"):
        raise SeallmError(f"no initialisation {method!r}; use 'mean' or 'global_mean'")
    old = np.asarray(embedding_VxM[:base], np.float32)
    rows = np.zeros((padded_size, old.shape[1]), np.float32)
    rows[:base] = old
    if not extension.new_pieces:
        return rows
    if method == "mean":
        rows[base:size] = _mean_of_sources(old, extension.source_ids)
    else:
        noise = np.random.default_rng(seed).standard_normal((size - base, old.shape[1]))
        rows[base:size] = old.mean(axis=0, dtype=np.float64) + NOISE * old.std(axis=0, dtype=np.float64) * noise
    return rows


def _mean_of_sources(old: np.ndarray, source_ids: list[list[int]]) -> np.ndarray:
    counts = np.asarray([len(ids) for ids in source_ids])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    flat = np.concatenate([np.asarray(ids) for ids in source_ids])
    return np.add.reduceat(old[flat].astype(np.float64), starts) / counts[:, None]
