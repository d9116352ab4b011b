"""Multiple choice by log-likelihood: the model answers with the choice it finds most likely."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.evaluation.accuracy import Accuracy
from seallm_jax.evaluation.choice_items import ChoiceItem
from seallm_jax.evaluation.rows import ScoredText, cut_context
from seallm_jax.evaluation.scorer import Scorer, TextEncoder


@dataclasses.dataclass(frozen=True)
class ChoiceScore:
    """Results of one task in one language.

    Attributes:
      items: number of questions.
      chance: accuracy of guessing.
      accuracy: the right choice has the highest log-probability (`acc` of lm-evaluation-harness).
      accuracy_normalized: the right choice has the highest log-probability per UTF-8 byte (`acc_norm`, there per
        character).
    """

    task: str
    language: str
    items: int
    chance: float
    accuracy: Accuracy
    accuracy_normalized: Accuracy


@dataclasses.dataclass(frozen=True)
class ChoiceScores:
    """Results by task and language, in the order of the items."""

    scores: tuple[ChoiceScore, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Rows {task, language, items, chance, accuracy, accuracy_normalized}; accuracies {value, standard_error}."""
        return [
            dataclasses.asdict(score)
            | {"accuracy": score.accuracy.to_json(), "accuracy_normalized": score.accuracy_normalized.to_json()}
            for score in self.scores
        ]


def multiple_choice(
    scorer: Scorer, tokenizer: TextEncoder, items: Sequence[ChoiceItem], *, progress: Progress | None = None
) -> ChoiceScores:
    """Scores each choice behind its context and takes the most likely one; the first of equals.

    A sequence is BOS (or `begin_id`), context and choice, tokenized together; scored are the tokens after the part that
    it shares with the context alone. Where it is longer than a row, the context loses tokens from the left behind BOS.

    Raises:
      SeallmError: no items, or ids that the model does not have.
    """
    if not items:
        raise SeallmError("there are no multiple-choice items to score")
    texts = [
        continuation_text(tokenizer, item.context, continuation, scorer.sequence_length)
        for item in items
        for continuation in item.continuations
    ]
    scores = iter(scorer.score(texts, progress=progress, name="multiple choice"))
    plain: dict[tuple[str, str], list[bool]] = {}
    normalized: dict[tuple[str, str], list[bool]] = {}
    chances: dict[tuple[str, str], list[float]] = {}
    for item in items:
        sums = np.asarray([next(scores).log_probability for _ in item.choices])
        sizes = np.asarray([len(choice.encode("utf-8")) for choice in item.choices])
        group = (item.task, item.language)
        plain.setdefault(group, []).append(int(sums.argmax()) == item.answer)
        normalized.setdefault(group, []).append(int((sums / sizes).argmax()) == item.answer)
        chances.setdefault(group, []).append(1 / len(item.choices))
    return ChoiceScores(
        tuple(
            ChoiceScore(
                task=task,
                language=language,
                items=len(hits),
                chance=sum(chances[task, language]) / len(hits),
                accuracy=Accuracy(sum(hits), len(hits)),
                accuracy_normalized=Accuracy(sum(normalized[task, language]), len(hits)),
            )
            for (task, language), hits in plain.items()
        )
    )


def continuation_text(tokenizer: TextEncoder, context: str, continuation: str, sequence_length: int) -> ScoredText:
    """BOS, context and continuation, tokenized together and scored from where the context alone would differ.

    At least the last token is scored. Context beyond a row is cut from the left, behind BOS.
    """
    alone = [tokenizer.begin_id, *tokenizer.encode(context)]
    whole = [tokenizer.begin_id, *tokenizer.encode(context + continuation)]
    shared = next(
        (i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole))
    )
    return cut_context(whole, min(shared, len(whole) - 1), sequence_length)
