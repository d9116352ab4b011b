"""New rows from the old tokens that are used alike: FOCUS (arXiv 2305.14481), with counts instead of fastText."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.extension import Extension

DIMENSIONS = 128
WINDOW = 5  # tokens on either side; the one at distance d counts 1 / d
SMOOTHING = 0.75  # exponent of the context counts (Levy, Goldberg and Dagan 2015)
MINIMUM_COUNT = 3  # occurrences that a token needs to have a vector worth trusting
TOKENS_AT_ONCE = 2_000_000
ROWS_AT_ONCE = 256


def similarity_weights(
    extension: Extension,
    texts: Sequence[str],
    *,
    default: scipy.sparse.csr_matrix,
    seed: int,
    progress: Progress,
    dimensions: int = DIMENSIONS,
) -> scipy.sparse.csr_matrix:
    """Sparsemax over the cosine similarities between a new token and all old ones in an auxiliary space.

    The auxiliary vectors come from the texts in the extended vocabulary. Half of the occurrences of new tokens, drawn
    at random, are written with the base's ids instead: old tokens that the new ones replace would have no contexts
    otherwise, and they are the ones to resemble. FOCUS trains fastText there; here it is the truncated singular value
    decomposition of the positive pointwise mutual information, which needs no further library and no training.

    Args:
      extension: the new tokens.
      texts: documents.
      default: weights of the tokens that are too rare.
      seed: of the draw.
      progress: one task.
      dimensions: of the auxiliary space at most.

    Returns:
      float32 [new tokens, base size]; every row sums to 1.
    """
    base, size = extension.base_size, extension.tokenizer.size
    with progress.task("auxiliary embeddings", total=3) as advance:
        encoded = extension.tokenizer.encode_batch(texts)
        documents = _with_some_split(encoded, extension, np.random.default_rng(seed))
        advance(1, "counting")
        counts = np.bincount(np.concatenate(documents), minlength=size)
        pairs = cooccurrences(documents, size, WINDOW)
        advance(1, "factorising")
        vectors = auxiliary_vectors(pairs, dimensions)
        norms = np.linalg.norm(vectors, axis=1)
        usable = (counts >= MINIMUM_COUNT) & (norms > 0)
        vectors /= np.maximum(norms, 1e-12)[:, None]
        old = np.flatnonzero(usable[:base])
        new = np.flatnonzero(usable[base:])
        if not len(old):
            return default
        blocks = [
            scipy.sparse.csr_matrix(sparsemax(vectors[base + new[start : start + ROWS_AT_ONCE]] @ vectors[old].T))
            for start in range(0, len(new), ROWS_AT_ONCE)
        ]
        advance(1)
    if not blocks:
        return default
    found = scipy.sparse.vstack(blocks).tocoo()
    shape = (size - base, base)
    weights = scipy.sparse.coo_matrix((found.data, (new[found.row], old[found.col])), shape=shape).tocsr()
    rare = np.ones(size - base, np.float32)
    rare[new] = 0
    return (weights + scipy.sparse.diags_array(rare) @ default).astype(np.float32).tocsr()


def cooccurrences(documents: Sequence[np.ndarray], size: int, window: int) -> scipy.sparse.csr_matrix:
    """float32 [size, size], symmetric: how often two ids stand within `window` of each other, weighted by 1 / distance.

    Ids of different documents are not neighbours.
    """
    total = scipy.sparse.csr_matrix((size, size), dtype=np.float32)
    gap = np.full(window, -1, np.int64)
    stream = np.concatenate([part for ids in documents for part in (ids.astype(np.int64), gap)])
    for start in range(0, len(stream), TOKENS_AT_ONCE):
        block = stream[start : start + TOKENS_AT_ONCE + window]  # no pair is lost at the end of a block
        for distance in range(1, window + 1):
            stop = min(TOKENS_AT_ONCE, len(block) - distance)
            left, right = block[:stop], block[distance : distance + stop]
            inside = (left >= 0) & (right >= 0)
            values = np.full(np.count_nonzero(inside), 1 / distance, np.float32)
            total += scipy.sparse.coo_matrix((values, (left[inside], right[inside])), shape=total.shape).tocsr()
    return total + total.T


def auxiliary_vectors(pairs: scipy.sparse.csr_matrix, dimensions: int) -> np.ndarray:
    """float32 [V, dimensions at most]: left singular vectors of the positive PMI, times the roots of the values."""
    pairs = pairs.tocoo()
    rows = np.asarray(pairs.sum(axis=1), np.float64).ravel()
    contexts = rows**SMOOTHING
    information = np.log(pairs.data * contexts.sum() / (rows[pairs.row] * contexts[pairs.col]))
    keep = information > 0
    positive = scipy.sparse.csr_matrix(
        (information[keep].astype(np.float32), (pairs.row[keep], pairs.col[keep])), shape=pairs.shape
    )
    dimensions = min(dimensions, len(np.unique(pairs.row[keep])) - 1, pairs.shape[0] - 1)
    if dimensions < 1:
        return np.zeros((pairs.shape[0], 1), np.float32)
    start = np.random.default_rng(0).standard_normal(pairs.shape[0]).astype(np.float32)  # for the same result each time
    left, values, _ = scipy.sparse.linalg.svds(positive, k=dimensions, v0=start)
    return left * np.sqrt(np.maximum(values, 0))


def sparsemax(scores_NxV: np.ndarray) -> np.ndarray:
    """Euclidean projection of each row onto the simplex (arXiv 1602.02068)."""
    ordered = -np.sort(-scores_NxV, axis=1)
    excess = np.cumsum(ordered, axis=1, dtype=np.float64) - 1
    position = np.arange(1, scores_NxV.shape[1] + 1)
    support = np.count_nonzero(ordered * position > excess, axis=1)
    threshold = excess[np.arange(len(ordered)), support - 1] / support
    return np.maximum(scores_NxV - threshold[:, None], 0).astype(np.float32)


def _with_some_split(
    documents: Sequence[np.ndarray], extension: Extension, generator: np.random.Generator
) -> list[np.ndarray]:
    """The documents with half of the new ids replaced by the base's ids for their text."""
    size = extension.tokenizer.size
    base, size = extension.base_size, extension.tokenizer.size
    parts = np.asarray([len(ids) for ids in extension.source_ids])
    flat = np.concatenate([np.arange(size), *map(np.asarray, extension.source_ids)])  # ids, then what they split into
    first = size + np.cumsum(parts) - parts
    result = []
    for ids in documents:
        split = (ids >= base) & (generator.random(len(ids)) < 0.5)
        start, count = ids.astype(np.int64), np.ones(len(ids), np.int64)
        start[split], count[split] = first[ids[split] - base], parts[ids[split] - base]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        result.append(flat[np.repeat(start, count) + within])
    return result
