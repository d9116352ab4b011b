"""Multiple-choice files to items: one context, several continuations, one right answer."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.core.paths import read_jsonl

# XCOPA (arXiv 2005.00333) as lm-evaluation-harness 0.4 words it: premise, connective, lower-cased alternative.
CONNECTIVES = {
    "en": {"cause": "because", "effect": "therefore"},
    "id": {"cause": "karena", "effect": "maka"},
    "ta": {"cause": "காரணமாக", "effect": "எனவே"},
    "th": {"cause": "เพราะ", "effect": "ดังนั้น"},
    "vi": {"cause": "bởi vì", "effect": "vì vậy"},
    "zh": {"cause": "因为", "effect": "所以"},
}
CHOICE_KEY = re.compile(r"(?:choice|mc_answer)_?(\d)|(?:option|choice)_([a-z])", re.IGNORECASE)
# how exams number their choices: Latin, Thai, Lao, Khmer, Burmese
ANSWER_LETTERS = ("ABCDEFGHIJ", "กขคงจ", "ກຂຄງຈ", "កខគឃង", "ကခဂဃင")
PASSAGE_KEYS = ("passage", "flores_passage", "text")


@dataclasses.dataclass(frozen=True)
class ChoiceItem:
    """One question.

    Attributes:
      task: name of the benchmark, from the file name.
      language: code.
      context: text before the answer.
      continuations: what follows the context for each choice, leading space included.
      choices: the choices alone; their UTF-8 bytes normalise the score.
      answer: index of the right choice.
    """

    task: str
    language: str
    context: str
    continuations: tuple[str, ...]
    choices: tuple[str, ...]
    answer: int


def read_choice_items(path: pathlib.Path) -> list[ChoiceItem]:
    """Reads a .jsonl file, or all of them in a directory in order of their names.

    A line holds one of
      `question`, `choices` (a list), `answer`, and optionally `passage`;
      XCOPA's `premise`, `choice1`, `choice2`, `question` (cause or effect), `label`;
      `question` with `option_a` ... (Global-MMLU) or `choice1` ... or `mc_answer1` ... (Belebele), and its answer in
      `answer`, `label` or `correct_answer_num`; these may lie in the first of `prompts`.
    The answer is an index from 0 (from 1 in `correct_answer_num`), a letter (Latin, Thai, Lao, Khmer, Burmese), or the
    text of the choice. The language is `lang` or `language`, else the end of the file name as in `xcopa_val_th.jsonl`;
    what is before it names the task.

    Raises:
      SeallmError: no such path, no items, or a line that cannot be read, with file and line number.
    """
    if not path.exists():
        raise SeallmError(f"multiple-choice path {path} does not exist")
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    items = [item for file in files for item in _read_file(file)]
    if not items:
        raise SeallmError(f"{path} holds no multiple-choice items (.jsonl lines with question, choices and answer)")
    return items


def _read_file(path: pathlib.Path) -> Iterator[ChoiceItem]:
    task, language = _name_parts(path)
    for number, record in enumerate(read_jsonl(path), start=1):
        try:
            yield _item(record, task, language)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SeallmError(
                f"{path}, item {number}: {error}; an item has question, choices and answer, or XCOPA's fields"
            ) from error


def _name_parts(path: pathlib.Path) -> tuple[str, str]:
    """Task and language from names such as xcopa_val_id.jsonl, id.jsonl, belebele-km-test.jsonl."""
    parts = re.split(r"[_.-]", path.stem)
    codes = [part for part in parts if part in KNOWN_LANGUAGES]
    if not codes:
        return path.stem, ""
    task = "_".join(part for part in parts if part != codes[-1])
    return task or "choices", codes[-1]


def _item(record: Any, task: str, language: str) -> ChoiceItem:
    if not isinstance(record, Mapping):
        raise ValueError(f"not an object: {record!r}")
    if isinstance(record.get("prompts"), list) and record["prompts"]:
        record = {**record, **record["prompts"][0]}
    language = record.get("lang") or record.get("language") or language
    if not isinstance(language, str) or not language:
        raise ValueError("no language in `lang` and none in the file name")
    choices = _choices(record)
    answer = _answer(record, choices)
    if "premise" in record and record.get("question") in ("cause", "effect"):
        context, continuations = _xcopa(record, choices, language)
    else:
        passage = next((record[key].strip() + "\n" for key in PASSAGE_KEYS if record.get(key)), "")
        context, continuations = f"{passage}{record['question'].strip()}\n", choices
    return ChoiceItem(task, language, context, continuations, choices, answer)


def _choices(record: Mapping[str, Any]) -> tuple[str, ...]:
    if "choices" in record:
        found = list(record["choices"])
    else:
        found = [value for key, value in sorted(record.items()) if CHOICE_KEY.fullmatch(key)]
    if len(found) < 2 or not all(isinstance(choice, str) and choice.strip() for choice in found):
        raise ValueError(f"needs two choices or more, all of them text, got {found!r}")
    return tuple(choice.strip() for choice in found)


def _answer(record: Mapping[str, Any], choices: tuple[str, ...]) -> int:
    key = next((key for key in ("answer", "label", "correct_answer_num") if key in record), None)
    if key is None:
        raise ValueError("no answer in `answer` or `label`")
    value = record[key]
    letter = value.strip().upper() if isinstance(value, str) else ""
    letters = next((row for row in ANSWER_LETTERS if letter in row), "")
    if isinstance(value, str) and value.strip() in choices:
        index = choices.index(value.strip())
    elif len(letter) == 1 and letters:
        index = letters.index(letter)
    elif key == "correct_answer_num":
        index = int(value) - 1
    elif isinstance(value, int) and not isinstance(value, bool):
        index = value
    else:
        raise ValueError(f"{key} is {value!r}, which is no index, letter or text of {len(choices)} choices")
    if not 0 <= index < len(choices):
        raise ValueError(f"{key} is {value!r}, but there are {len(choices)} choices")
    return index


def _xcopa(record: Mapping[str, Any], choices: tuple[str, ...], language: str) -> tuple[str, tuple[str, ...]]:
    if language not in CONNECTIVES:
        raise ValueError(f"no words for cause and effect in {language!r}; there are {', '.join(CONNECTIVES)}")
    premise = record["premise"].strip().rstrip(".。!?")
    context = f"{premise} {CONNECTIVES[language][record['question']]}"
    return context, tuple(f" {choice[0].lower()}{choice[1:]}" for choice in choices)
