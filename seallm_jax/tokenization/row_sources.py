"""New rows from the old tokens that a new token's text was made of: weights [new, old] whose rows sum to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.extension import Extension
from seallm_jax.tokenization.tokenizer import Tokenizer

TEXTS_AT_ONCE = 256


def mean_weights(extension: Extension) -> scipy.sparse.csr_matrix:
    """Equal weights on the base's ids for the text of each new token, as often as they occur in it."""
    counts = [len(ids) for ids in extension.source_ids]
    values = np.repeat(1 / np.asarray(counts, np.float32), counts)
    columns = np.concatenate([np.asarray(ids, np.int64) for ids in extension.source_ids])
    return _matrix(extension, values, np.repeat(np.arange(len(counts)), counts), columns)


def first_weights(extension: Extension) -> scipy.sparse.csr_matrix:
    """All weight on the first of the base's ids for the text of each new token."""
    columns = np.asarray([ids[0] for ids in extension.source_ids])
    return _matrix(extension, np.ones(len(columns), np.float32), np.arange(len(columns)), columns)


def aligned_weights(
    extension: Extension,
    base: Tokenizer,
    texts: Sequence[str],
    *,
    default: scipy.sparse.csr_matrix,
    progress: Progress,
) -> scipy.sparse.csr_matrix:
    """Weights by how often, and with how many bytes, each old token lies where the new one now is.

    Both tokenizers encode the texts. The weight of old token s in new token t is the number of bytes of the texts that
    s covers in the one encoding and t in the other, over all bytes that t covers. In context the base may cut a text
    otherwise than it does alone, which the mean of the token's own ids knows nothing of.

    Args:
      extension: the new tokens.
      base: the tokenizer that was extended.
      texts: documents.
      default: weights of the tokens that do not occur.
      progress: one task.

    Returns:
      float32 [new tokens, base size]; every row sums to 1.
    """
    extended, size = extension.tokenizer, extension.base_size
    shape = (len(extension.new_pieces), size)
    shared = scipy.sparse.csr_matrix(shape, dtype=np.float64)
    with progress.task("aligning old and new tokens", total=len(texts)) as advance:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            chunk = texts[start : start + TEXTS_AT_ONCE]
            parts = [
                _overlaps(old, new, base.byte_lengths, extended.byte_lengths, size)
                for old, new in zip(base.encode_batch(chunk), extended.encode_batch(chunk), strict=True)
            ]
            new, old, overlap = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            shared += scipy.sparse.coo_matrix((overlap, (new - size, old)), shape=shape).tocsr()
            advance(len(chunk))
    total = np.asarray(shared.sum(axis=1)).ravel()
    seen = (total > 0).astype(np.float64)
    scaled = scipy.sparse.diags_array(seen / np.maximum(total, 1)) @ shared
    return (scaled + scipy.sparse.diags_array(1 - seen) @ default).astype(np.float32).tocsr()


def _overlaps(
    old: np.ndarray, new: np.ndarray, old_bytes: np.ndarray, new_bytes: np.ndarray, base_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(new ids, old ids, bytes shared) of one text, for the new ids from `base_size` on."""
    old_ends, new_ends = np.cumsum(old_bytes[old]), np.cumsum(new_bytes[new])
    cuts = np.union1d(old_ends, new_ends)  # between two cuts there is one token of each encoding
    if not len(cuts) or old_ends[-1] != new_ends[-1]:  # an unknown character: its bytes are not known
        return (np.zeros(0, np.int64),) * 3
    overlap = np.diff(cuts, prepend=0)
    olds, news = old[np.searchsorted(old_ends, cuts)], new[np.searchsorted(new_ends, cuts)]
    wanted = news >= base_size
    return news[wanted].astype(np.int64), olds[wanted].astype(np.int64), overlap[wanted]


def _matrix(extension: Extension, values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> scipy.sparse.csr_matrix:
    shape = (len(extension.new_pieces), extension.base_size)
    return scipy.sparse.coo_matrix((values, (rows, columns)), shape=shape).tocsr()
