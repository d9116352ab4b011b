"""Documents of running text to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from seallm_jax.tokenization.tokenizer import Tokenizer

TEXTS_AT_ONCE = 512


def text_ids(tokenizer: Tokenizer, texts: Iterable[str], *, threads: int = 0) -> Iterator[np.ndarray]:
    """int32 ids of each text, in order: the beginning-of-text id, the text, the end-of-text id.

    Texts are encoded a few hundred at a time, on `threads` threads (0: all cores).
    """
    begin, end = np.array([tokenizer.bos_id], np.int32), np.array([tokenizer.eos_id], np.int32)
    texts = iter(texts)
    while chunk := list(islice(texts, TEXTS_AT_ONCE)):
        for ids in tokenizer.encode_batch(chunk, threads=threads):
            yield np.concatenate([begin, np.asarray(ids, np.int32), end])
