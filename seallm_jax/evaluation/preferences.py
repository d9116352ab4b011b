"""Preference accuracy: does the model find the preferred reply more likely?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.evaluation.accuracy import Accuracy
from seallm_jax.evaluation.preference_pairs import PreferencePair
from seallm_jax.evaluation.rows import cut_context
from seallm_jax.evaluation.scorer import Scorer


@dataclasses.dataclass(frozen=True)
class PreferenceScore:
    """Results of one language; a tie counts as half a success.

    Attributes:
      pairs: number of pairs.
      accuracy: the preferred reply has the higher log-probability. Favours short replies.
      accuracy_normalized: it has the higher log-probability per UTF-8 byte.
      implicit_accuracy: its log-probability relative to the reference model's is higher, as DPO trains it; None
        without a reference.
      margin: mean difference in log-probability, nats.
      implicit_margin: mean difference relative to the reference, nats; None without a reference.
    """

    pairs: int
    accuracy: Accuracy
    accuracy_normalized: Accuracy
    implicit_accuracy: Accuracy | None
    margin: float
    implicit_margin: float | None


@dataclasses.dataclass(frozen=True)
class PreferenceScores:
    """Results by language, and `log_probabilities` float64 [pairs, 2] of chosen and rejected replies in nats.

    Those of the model before preference optimisation are the `reference` of the one after it.
    """

    by_language: Mapping[str, PreferenceScore]
    log_probabilities: np.ndarray

    def to_json(self) -> dict[str, dict[str, Any]]:
        """language -> {pairs, accuracy, accuracy_normalized, implicit_accuracy, margin, implicit_margin}."""
        return {code: _to_json(score) for code, score in self.by_language.items()}


def preference_accuracy(
    scorer: Scorer,
    pairs: Sequence[PreferencePair],
    *,
    reference: np.ndarray | None = None,
    progress: Progress | None = None,
) -> PreferenceScores:
    """Compares the log-probabilities of the replies given the prompt, the tokens that end them included.

    A sequence that is longer than a row loses tokens of its prompt from the left, behind the first.

    Args:
      scorer: the model.
      pairs: from `read_preference_pairs`.
      reference: [pairs, 2], log-probabilities under the reference model in the order of `pairs`.

    Raises:
      SeallmError: no pairs, or a reference for other pairs.
    """
    if not pairs:
        raise SeallmError("there are no preference pairs to score")
    if reference is not None and np.shape(reference) != (len(pairs), 2):
        raise SeallmError(f"reference log-probabilities have shape {np.shape(reference)}, not ({len(pairs)}, 2)")
    texts = []
    for pair in pairs:
        for reply in (pair.chosen, pair.rejected):
            texts.append(cut_context(reply.ids, reply.start, scorer.sequence_length))
    scores = scorer.score(texts, progress=progress, name="preferences")
    sums = np.asarray([score.log_probability for score in scores]).reshape(-1, 2)
    sizes = np.asarray([(max(pair.chosen_bytes, 1), max(pair.rejected_bytes, 1)) for pair in pairs])
    margins = sums[:, 0] - sums[:, 1]
    normalized = sums[:, 0] / sizes[:, 0] - sums[:, 1] / sizes[:, 1]
    implicit = None if reference is None else margins - (reference[:, 0] - reference[:, 1])
    results = {}
    for code in dict.fromkeys(pair.language for pair in pairs):
        mine = np.asarray([pair.language == code for pair in pairs])
        results[code] = PreferenceScore(
            pairs=int(mine.sum()),
            accuracy=_accuracy(margins[mine]),
            accuracy_normalized=_accuracy(normalized[mine]),
            implicit_accuracy=None if implicit is None else _accuracy(implicit[mine]),
            margin=float(margins[mine].mean()),
            implicit_margin=None if implicit is None else float(implicit[mine].mean()),
        )
    return PreferenceScores(results, sums)


def _accuracy(margins: np.ndarray) -> Accuracy:
    return Accuracy(float((margins > 0).sum() + 0.5 * (margins == 0).sum()), len(margins))


def _to_json(score: PreferenceScore) -> dict[str, Any]:
    implicit = score.implicit_accuracy
    return dataclasses.asdict(score) | {
        "accuracy": score.accuracy.to_json(),
        "accuracy_normalized": score.accuracy_normalized.to_json(),
        "implicit_accuracy": None if implicit is None else implicit.to_json(),
    }
