"""The README.md of an exported folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from seallm_jax.core.languages import language_name

LOADING = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
INPUTS
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=128)[0], skip_special_tokens=True))
```"""
CHAT_INPUTS = """messages = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)"""
TEXT_INPUTS = """inputs = tokenizer("...", return_tensors="pt")"""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a card says beside what the checkpoint itself knows. Empty fields are left out.

    Attributes:
      name: title.
      languages: codes, for the front matter and the text.
      base: what the model started from: a Hub id (owner/name), a path, or words.
      recipe: how it was made, Markdown paragraphs or a list.
      tokens: stage -> tokens trained on.
      evaluation: rows of one table; all have the first row's columns.
      license: an identifier such as apache-2.0. Only the user knows it: without one the field is left out.
      chat: whether the example is a conversation, for a fine-tuned model, or plain text.
    """

    name: str = "model"
    languages: Sequence[str] = ()
    base: str = ""
    recipe: str = ""
    tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)
    evaluation: Sequence[Mapping[str, Any]] = ()
    license: str = ""
    chat: bool = True

    def render(self, facts: Mapping[str, Any]) -> str:
        """Markdown with YAML front matter. `facts` are rows on the checkpoint: parameters, dtype, vocabulary."""
        sections = [self._front_matter(), f"# {_line(self.name)}"]
        if self.languages:
            names = ", ".join(f"{language_name(code)} ({code})" for code in self.languages)
            sections.append(f"A language model for {_line(names)}.")
        if self.base:
            sections.append(f"Base: {_line(self.base)}")
        if self.recipe:
            sections.append(f"## Recipe\n\n{self.recipe.strip()}")
        if self.tokens:
            rows = [{"stage": stage, "tokens": count} for stage, count in self.tokens.items()]
            sections.append(f"## Training tokens\n\n{_table(rows)}")
        if self.evaluation:
            sections.append(f"## Evaluation\n\n{_table(self.evaluation)}")
        sections.append(f"## Use\n\n{LOADING.replace('INPUTS', CHAT_INPUTS if self.chat else TEXT_INPUTS)}")
        sections.append(f"## Checkpoint\n\n{_table([facts])}")
        sections.append("Made with seallm_jax.")
        return "\n\n".join(sections) + "\n"

    def _front_matter(self) -> str:
        fields: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
        if self.languages:
            fields = {"language": list(self.languages)} | fields
        if self.license:
            fields["license"] = self.license
        if _is_hub_id(self.base):
            fields["base_model"] = self.base
        # JSON is YAML, and quotes protect codes such as `no`
        return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items()) + "---"


def _is_hub_id(base: str) -> bool:
    owner, separator, name = base.partition("/")
    return bool(separator) and all(
        part and not part.startswith(".") and part.replace("-", "").replace("_", "").replace(".", "").isalnum()
        for part in (owner, name)
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = list(rows[0])
    lines = ["| " + " | ".join(_cell(key) for key in keys) + " |", "|" + " --- |" * len(keys)]
    lines += ["| " + " | ".join(_cell(row.get(key, "")) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return _line(str(value)).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(str(text).split())
