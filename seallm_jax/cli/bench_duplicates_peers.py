"""Near duplicates with this package, datasketch and rensa, on texts in memory."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from seallm_jax.core.corpus_config import DuplicatesConfig
from seallm_jax.core.progress import Progress


def find_with_seallm(texts: Sequence[str], config: DuplicatesConfig) -> np.ndarray:
    """bool [texts]: which repeat an earlier one."""
    from seallm_jax.corpus.document import Document
    from seallm_jax.corpus.duplicate_clusters import cluster_duplicates
    from seallm_jax.corpus.duplicate_signatures import DuplicateSignatures

    with tempfile.TemporaryDirectory(prefix="seallm-bench-") as name:
        directory = pathlib.Path(name)
        with DuplicateSignatures(directory / "all", config) as signatures:
            for text in texts:
                signatures.add(Document(text, "", ""))
        cluster_duplicates([directory / "all"], directory / "decisions", config, progress=Progress.silent())
        return np.fromfile(directory / "decisions" / "all", np.uint8) > 0


def find_with_datasketch(texts: Sequence[str], config: DuplicatesConfig) -> np.ndarray:
    """bool [texts]: which are as similar to an earlier one that stayed, by datasketch's MinHash and LSH."""
    import datasketch

    empty = datasketch.MinHash(num_perm=config.num_hashes)
    index = datasketch.MinHashLSH(threshold=config.threshold, num_perm=config.num_hashes)
    kept: dict[int, datasketch.MinHash] = {}
    dropped = np.zeros(len(texts), bool)
    for place, text in enumerate(texts):
        signature = empty.copy()
        signature.update_batch([shingle.encode() for shingle in _shingles(text, config.ngram)])
        near = index.query(signature)
        dropped[place] = any(signature.jaccard(kept[other]) >= config.threshold for other in near)
        if not dropped[place]:
            index.insert(place, signature)
            kept[place] = signature
    return dropped


def find_with_rensa(texts: Sequence[str], config: DuplicatesConfig) -> np.ndarray:
    """bool [texts]: which are as similar to an earlier one that stayed, by rensa's RMinHash and LSH, in Rust."""
    import rensa

    from seallm_jax.corpus.minhash import choose_bands

    bands, _ = choose_bands(config.threshold, config.num_hashes)
    bands = max(divisor for divisor in range(1, bands + 1) if config.num_hashes % divisor == 0)
    index = rensa.RMinHashLSH(config.threshold, config.num_hashes, bands)
    kept: dict[int, rensa.RMinHash] = {}
    dropped = np.zeros(len(texts), bool)
    for place, text in enumerate(texts):
        signature = rensa.RMinHash(config.num_hashes, 1)
        signature.update(list(_shingles(text, config.ngram)))
        near = index.query(signature)
        dropped[place] = any(signature.jaccard(kept[other]) >= config.threshold for other in near)
        if not dropped[place]:
            index.insert(place, signature)
            kept[place] = signature
    return dropped


def _shingles(text: str, ngram: int) -> set[str]:
    folded = " ".join(text.split()).casefold()
    return {folded[start : start + ngram] for start in range(len(folded) - ngram + 1)}


PEERS: dict[str, Callable[[Sequence[str], DuplicatesConfig], np.ndarray]] = {
    "seallm": find_with_seallm,
    "datasketch": find_with_datasketch,
    "rensa": find_with_rensa,
}
