"""Documents of running text to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from seallm_jax.tokenization.tokenizer import Tokenizer

TEXTS_AT_ONCE = 512


def text_ids(
    tokenizer: Tokenizer, texts: Iterable[str], *, threads: int = 0, dropout: float = 0.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """int32 ids of each text, in order: `begin_id` of the tokenizer, the text, `end_id`.

    Texts are encoded a few hundred at a time, on `threads` threads (0: all cores), with BPE-dropout where `dropout` is
    not 0; the ids are a function of text, `dropout` and `seed`.
    """
    begin, end = np.array([tokenizer.begin_id], np.int32), np.array([tokenizer.end_id], np.int32)
    texts = iter(texts)
    while chunk := list(islice(texts, TEXTS_AT_ONCE)):
        for ids in tokenizer.encode_batch(chunk, threads=threads, dropout=dropout, seed=seed):
            yield np.concatenate([begin, np.asarray(ids, np.int32), end])
