"""Embedding rows for the new tokens of an extended vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.core.vocab_config import INITIALIZATIONS, Initialization
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.row_similarity import similarity_weights
from seallm_jax.tokenization.row_sources import aligned_weights, first_weights, mean_weights
from seallm_jax.tokenization.tokenizer import Tokenizer

NOISE = 0.02  # of `global_mean`: share of the old rows' standard deviation, per column
ROWS_AT_ONCE = 4096


class RowInitializer:
    """Makes the rows of new tokens by one method, for any matrix that has a row for each token.

      mean: the mean of the base's rows for the token's text.
      weighted_mean: the mean of the rows of the base's tokens at the token's occurrences in `texts`, weighted by the
        bytes shared (`row_sources.aligned_weights`).
      first: the row of the base's first token for its text, which had to be predicted where now the new token is.
      similarity: the sparsemax-weighted mean of the rows of the old tokens that are used in `texts` as the new one is
        (`row_similarity.similarity_weights`, after FOCUS, arXiv 2305.14481).
      global_mean: the mean of all old rows, and a little noise so that new rows differ.
      global_noise: drawn from the normal distribution with the mean and the covariance of all old rows (Hewitt 2021,
        Initializing New Word Embeddings for Pretrained Language Models).

    New tokens that `texts` has no word on take the mean. All that text decides is worked out here, once.
    """

    def __init__(
        self,
        extension: Extension,
        method: Initialization = "mean",
        *,
        base: Tokenizer | None = None,
        texts: Sequence[str] = (),
        seed: int = 0,
        progress: Progress | None = None,
    ):
        """Prepares a method.

        Args:
          extension: tells which old tokens each new one is made of.
          method: see the class.
          base: the tokenizer that was extended; for weighted_mean.
          texts: documents, the new languages' above all; for weighted_mean and similarity.
          seed: of noise, and of what similarity draws.
          progress: a task for the methods that read text.

        Raises:
          SeallmError: an unknown method, or one without the text or the base tokenizer that it needs.
        """
        if method not in INITIALIZATIONS:
            raise SeallmError(f"no initialisation {method!r}; use one of {', '.join(INITIALIZATIONS)}")
        if method in ("weighted_mean", "similarity") and not texts:
            raise SeallmError(f"initialisation {method!r} needs text in the new languages; give it some, or use 'mean'")
        self._extension = extension
        self._method = method
        self._seed = seed
        progress = progress or Progress.silent()
        self._weights = None
        if method.startswith("global") or not extension.new_pieces:
            return
        self._weights = first_weights(extension) if method == "first" else mean_weights(extension)
        if method == "weighted_mean":
            if base is None or base.digest != extension.base_digest:
                raise SeallmError("initialisation 'weighted_mean' needs the tokenizer that was extended")
            self._weights = aligned_weights(extension, base, texts, default=self._weights, progress=progress)
        elif method == "similarity":
            self._weights = similarity_weights(extension, texts, default=self._weights, seed=seed, progress=progress)

    def rows(self, matrix_VxM: np.ndarray, *, padded_size: int | None = None) -> np.ndarray:
        """The matrix for the extended vocabulary.

        Old rows stay bit for bit; rows that the base model padded beyond its tokenizer are dropped, since the new ids
        take their places; padding rows are zero.

        Args:
          matrix_VxM: float32, V >= the base tokenizer's size: the embedding or the output matrix.
          padded_size: rows of the result; None for none beyond the tokenizer's.

        Returns:
          float32 [padded_size, M].

        Raises:
          SeallmError: a matrix that does not fit the base tokenizer, or a padded size below the extended vocabulary.
        """
        base, size = self._extension.base_size, self._extension.tokenizer.size
        padded_size = size if padded_size is None else padded_size
        if matrix_VxM.ndim != 2 or matrix_VxM.shape[0] < base:
            raise SeallmError(
                f"an embedding of shape {matrix_VxM.shape} does not hold the base tokenizer's {base} rows"
            )
        if padded_size < size:
            raise SeallmError(f"padded vocabulary size {padded_size} is below the extended tokenizer's {size}")
        old = np.asarray(matrix_VxM[:base], np.float32)
        rows = np.zeros((padded_size, old.shape[1]), np.float32)
        rows[:base] = old
        if self._weights is not None:
            rows[base:size] = self._weights @ old
        elif size > base:
            rows[base:size] = _global_rows(old, size - base, self._method == "global_noise", self._seed)
        return rows


def initialize_rows(
    embedding_VxM: np.ndarray,
    extension: Extension,
    method: Initialization = "mean",
    *,
    padded_size: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """`RowInitializer.rows` for one matrix and a method that needs no text."""
    return RowInitializer(extension, method, seed=seed).rows(embedding_VxM, padded_size=padded_size)


def _global_rows(old: np.ndarray, count: int, matched: bool, seed: int) -> np.ndarray:
    """Rows around the mean of all old ones: with their covariance, or `NOISE` of their deviation in each column."""
    mean = old.mean(axis=0, dtype=np.float64)
    noise = np.random.default_rng(seed).standard_normal((count, old.shape[1]))
    if not matched:
        return mean + NOISE * old.std(axis=0, dtype=np.float64) * noise
    covariance = np.zeros((old.shape[1],) * 2)
    for start in range(0, len(old), ROWS_AT_ONCE):  # a float64 copy of the whole matrix would be large
        centred = old[start : start + ROWS_AT_ONCE] - mean
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance / len(old))
    return mean + noise @ (np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)
