"""The second phase of finding duplicates, once for the whole corpus: which documents go."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from seallm_jax.core.corpus_config import DuplicatesConfig
from seallm_jax.core.paths import atomic_directory
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.disjoint_sets import DisjointSets
from seallm_jax.corpus.duplicate_signatures import read_signatures
from seallm_jax.corpus.minhash import band_keys, choose_bands, estimated_similarity

REASONS = ("", "exact duplicate", "same address", "near duplicate")  # by code in the decisions
EXACT, ADDRESS, NEAR = 1, 2, 3
_PAIRS_AT_ONCE = 1 << 16
_BLOCK = 1 << 16  # documents whose bands are computed at once
# Documents of one band that are compared with all later ones. Larger groups of documents that agree in a band and yet
# are not similar are rare; their further pairs have the other bands.
_LEADERS = 64


def cluster_duplicates(
    paths: Sequence[pathlib.Path], output: pathlib.Path, config: DuplicatesConfig, *, progress: Progress
) -> collections.Counter[str]:
    """Reads the signature files of all units, in corpus order, and writes which documents to drop.

    Exact duplicates go first, then further documents of one address, then near duplicates of what is left: groups of
    documents linked by MinHash with LSH (Broder 1997), each link confirmed by the estimated Jaccard similarity. Of
    every group `config.keep` says which one stays. In memory are about 100 bytes a document; signatures and bands are
    read from disk.

    Args:
      paths: files of `DuplicateSignatures`, in corpus order.
      output: directory; for every signature file it receives a file of the same name for `drop_duplicates`.

    Returns:
      Number of documents by reason: exact duplicate, same address, near duplicate.

    Raises:
      SeallmError: a file is damaged or was written under other settings.
    """
    units = [read_signatures(path, config) for path in paths]
    offsets = np.cumsum([0, *map(len, units)])
    decisions = np.zeros(offsets[-1], np.uint8)
    num_bytes = _column(units, "num_bytes")
    with atomic_directory(output) as directory:
        if config.exact:
            _drop_repeated(decisions, _column(units, "digest"), num_bytes, config, EXACT)
        if config.url:
            _drop_repeated(decisions, _column(units, "url"), num_bytes, config, ADDRESS)
        if config.near:
            with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
                _drop_near(decisions, units, num_bytes, config, pathlib.Path(scratch), progress)
        for path, start, end in zip(paths, offsets[:-1], offsets[1:], strict=True):
            decisions[start:end].tofile(directory / path.name)
    counts = np.bincount(decisions, minlength=len(REASONS))
    return collections.Counter({REASONS[code]: int(counts[code]) for code in (EXACT, ADDRESS, NEAR) if counts[code]})


def _column(units: Sequence[np.ndarray], name: str) -> np.ndarray:
    return np.concatenate([unit[name] for unit in units]) if units else np.zeros(0, np.uint64)


def _drop_repeated(
    decisions: np.ndarray, keys: np.ndarray, num_bytes: np.ndarray, config: DuplicatesConfig, code: int
) -> None:
    """Marks all but one of the documents with equal keys (of 64 or 128 bits); key 0 stands for none."""
    keys = keys.reshape(len(keys), keys.size // max(1, len(keys)))  # -1 is undefined without documents
    items = np.flatnonzero((decisions == 0) & keys.any(axis=1))
    words = keys[items].T
    order = np.lexsort((items, *_preference(num_bytes[items], config), *words))
    same = np.ones(len(items), bool)
    for word in words:
        same[1:] &= word[order][1:] == word[order][:-1]
    same[:1] = False
    decisions[items[order[same]]] = code


def _preference(num_bytes: np.ndarray, config: DuplicatesConfig) -> tuple[np.ndarray, ...]:
    """Sort keys under which the document that stays comes first, when the order of the corpus breaks ties."""
    return (-num_bytes.astype(np.int64),) if config.keep == "longest" else ()


def _drop_near(
    decisions: np.ndarray,
    units: Sequence[np.ndarray],
    num_bytes: np.ndarray,
    config: DuplicatesConfig,
    scratch: pathlib.Path,
    progress: Progress,
) -> None:
    items = np.flatnonzero(decisions == 0)
    bands, rows = choose_bands(config.threshold, config.num_hashes)
    _write_bands(decisions, units, scratch, bands, rows)
    if len(items) < 2:
        return
    signatures = np.memmap(scratch / "signatures", np.uint16, mode="r", shape=(len(items), config.num_hashes))
    groups = DisjointSets(len(items))
    with progress.task("corpus: near duplicates (bands)", total=bands) as advance:
        for band in range(bands):
            _link_band(np.fromfile(scratch / f"band{band}", np.uint64), signatures, groups, config.threshold)
            advance()
    roots = groups.roots(np.arange(len(items)))
    order = np.lexsort((items, *_preference(num_bytes[items], config), roots))
    repeated = np.zeros(len(items), bool)
    repeated[1:] = roots[order][1:] == roots[order][:-1]
    decisions[items[order[repeated]]] = NEAR


def _write_bands(
    decisions: np.ndarray, units: Sequence[np.ndarray], scratch: pathlib.Path, bands: int, rows: int
) -> None:
    """Copies what the comparison reads into files: the signatures of the remaining documents, and a file a band."""
    with contextlib.ExitStack() as stack:
        signatures = stack.enter_context(open(scratch / "signatures", "wb"))
        files = [stack.enter_context(open(scratch / f"band{band}", "wb")) for band in range(bands)]
        start = 0
        for unit in units:
            for block in range(0, len(unit), _BLOCK):
                records = unit[block : block + _BLOCK]
                left = records["signature"][decisions[start : start + len(records)] == 0]
                start += len(records)
                signatures.write(left.tobytes())
                for file, keys in zip(files, band_keys(left, bands, rows), strict=True):
                    file.write(keys.tobytes())


def _link_band(keys: np.ndarray, signatures: np.ndarray, groups: DisjointSets, threshold: float) -> None:
    """Links the documents that have the same key and similar signatures."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order][:1]))
    sizes = np.diff(starts, append=len(order))
    for leader in range(_LEADERS):
        starts, sizes = starts[sizes > leader + 1], sizes[sizes > leader + 1]
        if not len(starts):
            return
        # the members after the leader, of all groups
        counts = sizes - leader - 1
        first = np.repeat(starts + leader, counts)
        within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        a, b = order[first], order[first + 1 + within]
        apart = groups.roots(a) != groups.roots(b)
        a, b = a[apart], b[apart]
        similar = np.zeros(len(a), bool)
        for start in range(0, len(a), _PAIRS_AT_ONCE):
            block = slice(start, start + _PAIRS_AT_ONCE)
            similar[block] = estimated_similarity(signatures[a[block]], signatures[b[block]]) >= threshold
        groups.link(a[similar], b[similar])
        # groups whose members are all linked with each other are done
        remaining = np.add.reduceat(apart, np.cumsum(counts) - counts) > 0
        starts, sizes = starts[remaining], sizes[remaining]
