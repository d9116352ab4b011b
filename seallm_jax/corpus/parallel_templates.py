"""Eleven ways to write a sentence and its translation as plain text.

Marco-LLM (arXiv 2412.04003) puts parallel text into eleven templates, A to K. The wording of one of them is known to us
and is A here; the other ten are our own.
"""

from __future__ import annotations

import json

# {X} and {Y} are the names of the languages, {x} and {y} the sentence and its translation
_WORDINGS = {
    "A": "Translate the text from {X} to {Y}:\n{X} text: {x}\n{Y} text: {y}",
    # the two sides with their languages
    "B": "{X}: {x}\n{Y}: {y}",
    # the two sides alone, as in a bilingual book
    "C": "{x}\n{y}",
    # a question and its answer
    "D": 'How do you say "{x}" in {Y}?\nIn {Y}, this is: {y}',
    # a sentence about the translation
    "E": "The {X} sentence “{x}” means the following in {Y}: {y}",
    # the translation first
    "F": "{y}\n(translated from {X}: {x})",
    # marks as in machine translation
    "G": "[{X}] {x} [{Y}] {y}",
    # a dialogue
    "H": "User: Please give me the {Y} version of this {X} text.\n{x}\nAssistant: {y}",
    # a table
    "I": "| {X} | {Y} |\n| --- | --- |\n| {x} | {y} |",
    # an entry of a phrase book
    "J": "{x}\n= {y} ({Y})",
}
LETTERS = (*_WORDINGS, "K")


def write_pair(letter: str, sentence: str, translation: str, names: tuple[str, str]) -> str:
    """The text of a pair under template `letter`, A to K; `names` are those of the two languages, in order."""
    if letter == "K":  # structured data
        return json.dumps({names[0]: sentence, names[1]: translation}, ensure_ascii=False)
    return _WORDINGS[letter].format(X=names[0], Y=names[1], x=sentence, y=translation)
