"""Multiple choice against a choice by hand."""

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.evaluation.choice_items import ChoiceItem
from seallm_jax.evaluation.choices import continuation_text, multiple_choice
from seallm_jax.evaluation.scorer import Scorer

LENGTH = 32


def items_of(task="quiz", language="id", count=6):
    generator = np.random.default_rng(len(task))
    words = ["air", "api", "angin topan", "tanah", "langit biru"]
    result = []
    for number in range(count):
        choices = tuple(generator.permutation(words)[: 2 + number % 3])
        result.append(ChoiceItem(task, language, f"Tanya {number}?\n", choices, choices, number % 2))
    return result


def test_accuracies_are_those_of_scores_taken_alone(scorer, tokenizer, alone):
    items = items_of() + items_of("other", "th", 4)
    scores = {(score.task, score.language): score for score in multiple_choice(scorer, tokenizer, items).scores}
    for task, language in (("quiz", "id"), ("other", "th")):
        mine = [item for item in items if item.task == task]
        plain = normalized = 0
        for item in mine:
            sums = [
                alone([256, *(item.context + choice).encode()], 1 + len(item.context.encode()))
                for choice in item.choices
            ]
            plain += int(np.argmax(sums)) == item.answer
            per_byte = [total / len(choice.encode()) for total, choice in zip(sums, item.choices, strict=True)]
            normalized += int(np.argmax(per_byte)) == item.answer
        score = scores[task, language]
        assert (score.items, score.accuracy.correct, score.accuracy_normalized.correct) == (
            len(mine),
            plain,
            normalized,
        )
        assert score.chance == pytest.approx(np.mean([1 / len(item.choices) for item in mine]))


def test_a_uniform_model_prefers_the_shortest_and_then_the_first(tokenizer, decoder):
    scorer = Scorer(decoder(0.0), sequence_length=LENGTH, batch_rows=8)
    item = ChoiceItem("t", "en", "q\n", ("long", "b", "c"), ("long", "b", "c"), 1)
    (score,) = multiple_choice(scorer, tokenizer, [item]).scores
    assert score.accuracy.value == 1.0
    assert score.accuracy_normalized.standard_error is None


def test_long_contexts_lose_their_beginning(scorer, tokenizer):
    text = continuation_text(tokenizer, "x" * 100 + "the end: ", "yes", LENGTH)
    assert len(text.ids) == LENGTH + 1 and text.ids[0] == 256
    assert bytes(text.ids[1:].tolist()).endswith(b"the end: yes")
    assert bytes(text.ids[text.start :].tolist()) == b"yes"


class PairTokenizer:
    """Two bytes that are alike make one token, as merges across the border of context and choice do."""

    begin_id = 256

    def encode(self, text):
        ids, data = [], text.encode()
        while data:
            size = 2 if data[:2] == data[:1] * 2 else 1
            ids.append(data[0] if size == 1 else data[0] + 100)
            data = data[size:]
        return ids


def test_a_token_across_the_border_is_scored():
    text = continuation_text(PairTokenizer(), "ab", "bc", LENGTH)
    assert list(text.ids) == [256, ord("a"), ord("b") + 100, ord("c")]
    assert text.start == 2


def test_an_empty_continuation_still_scores_a_token(tokenizer):
    assert continuation_text(tokenizer, "ab", "", LENGTH).start == 2


def test_json_is_plain(scorer, tokenizer):
    (row,) = multiple_choice(scorer, tokenizer, items_of(count=3)).to_json()
    assert row.keys() == {"task", "language", "items", "chance", "accuracy", "accuracy_normalized"}
    assert row["accuracy"].keys() == {"value", "standard_error"}


def test_no_items_are_an_error(scorer, tokenizer):
    with pytest.raises(SeallmError, match="no multiple-choice items"):
        multiple_choice(scorer, tokenizer, [])
