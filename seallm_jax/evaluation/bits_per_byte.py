"""Bits per byte of held-out text by language: a loss that does not depend on the tokenizer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.evaluation.rows import ScoredText
from seallm_jax.evaluation.scorer import Scorer, TextEncoder


@dataclasses.dataclass(frozen=True)
class LanguageBits:
    """Sums over the held-out documents of one language.

    Attributes:
      bits: negative log2-probability of all text tokens.
      bytes: UTF-8 bytes of the raw text.
      tokens: text tokens.
      documents: number of documents.
      standard_error: of bits per byte, over documents (that of a ratio); None for a single document.
    """

    bits: float
    bytes: int
    tokens: int
    documents: int
    standard_error: float | None = None

    @property
    def bits_per_byte(self) -> float:
        """Total bits over total bytes."""
        return self.bits / self.bytes


@dataclasses.dataclass(frozen=True)
class BitsPerByte:
    """Results by language code, in the order of evaluation."""

    by_language: Mapping[str, LanguageBits]

    def to_json(self) -> dict[str, dict[str, Any]]:
        """language -> {bits_per_byte, bits, bytes, tokens, documents, standard_error}."""
        return {
            code: {"bits_per_byte": bits.bits_per_byte} | dataclasses.asdict(bits)
            for code, bits in self.by_language.items()
        }

    def change_from(self, before: BitsPerByte) -> dict[str, float]:
        """Relative change by language, for the languages of both: -0.1 means 10% fewer bits.

        Raises:
          SeallmError: a language was measured on different text.
        """
        common = [code for code in self.by_language if code in before.by_language]
        for code in common:
            if self.by_language[code].bytes != before.by_language[code].bytes:
                raise SeallmError(
                    f"bits per byte of {code} come from {before.by_language[code].bytes} and "
                    f"{self.by_language[code].bytes} bytes; compare results on the same held-out text"
                )
        return {
            code: self.by_language[code].bits_per_byte / before.by_language[code].bits_per_byte - 1 for code in common
        }

    def english_change_from(self, before: BitsPerByte) -> float | None:
        """Relative change of English, what adaptation cost it; None when it was not measured."""
        return self.change_from(before).get("en")


def bits_per_byte(
    scorer: Scorer,
    tokenizer: TextEncoder,
    heldout: Mapping[str, Sequence[str]],
    *,
    maximum_documents: int = 0,
    progress: Progress | None = None,
) -> BitsPerByte:
    """Measures held-out documents.

    Protocol: a document is BOS and its text, without EOS. Each text token is scored once, BOS is not scored. Where the
    tokenizer has no BOS, the token that ends a document stands in its place, as it did in pretraining and does in
    lm-evaluation-harness: the first token must count, or the bits would not be those of all the bytes. A document
    longer than a row is cut into windows of the row's length without overlap, so a token sees the tokens before it in
    its window. Bits are divided by the UTF-8 bytes of the raw text.

    Args:
      scorer: the model.
      tokenizer: the model's tokenizer.
      heldout: language -> documents; empty documents are left out.
      maximum_documents: the first so many of each language; 0 takes all.

    Raises:
      SeallmError: no text at all, or ids that the model does not have.
    """
    owners: list[str] = []
    sizes: list[int] = []
    texts: list[ScoredText] = []
    for code, documents in heldout.items():
        filled = [document for document in documents if document]
        for document in filled[: maximum_documents or None]:
            owners.append(code)
            sizes.append(len(document.encode("utf-8")))
            texts.append(ScoredText(np.asarray([tokenizer.begin_id, *tokenizer.encode(document)], np.int32)))
    if not texts:
        raise SeallmError("there is no held-out text to measure bits per byte on")
    scores = scorer.score(texts, progress=progress, name="bits per byte")
    results = {}
    for code in dict.fromkeys(owners):
        mine = [index for index, owner in enumerate(owners) if owner == code]
        bits = np.asarray([-scores[index].log_probability / math.log(2) for index in mine])
        lengths = np.asarray([sizes[index] for index in mine])
        results[code] = LanguageBits(
            bits=float(bits.sum()),
            bytes=int(lengths.sum()),
            tokens=sum(scores[index].tokens for index in mine),
            documents=len(mine),
            standard_error=_ratio_error(bits, lengths),
        )
    return BitsPerByte(results)


def _ratio_error(numerators: np.ndarray, denominators: np.ndarray) -> float | None:
    """Standard error of sum(numerators) / sum(denominators) over independent pairs (linearised)."""
    n = len(numerators)
    if n < 2:
        return None
    residuals = numerators - numerators.sum() / denominators.sum() * denominators
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / denominators.sum())
