"""The tokenizer files of a Hugging Face folder: the ids that a model's config names, and a copy."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json

FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
END_OF_TURN = ("<|im_end|>",)


@dataclasses.dataclass(frozen=True)
class TokenizerFolder:
    """A folder with tokenizer.json and tokenizer_config.json.

    Attributes:
      path: the folder.
      size: number of ids, one more than the largest.
      bos_id: id that begins a text, or None.
      eos_id: id that ends a text.
      pad_id: id for padding, or None.
      stop_ids: ids at which generation ends: the end of a text and, where it has one, of a chat turn.
    """

    path: pathlib.Path
    size: int
    bos_id: int | None
    eos_id: int
    pad_id: int | None
    stop_ids: tuple[int, ...]

    @classmethod
    def read(cls, path: pathlib.Path) -> TokenizerFolder:
        """Reads the ids. Raises SeallmError for a folder without these files or without an end-of-text token."""
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (path / name).is_file():
                raise SeallmError(f"tokenizer folder {path} has no {name}; save the tokenizer there")
        config, fast = read_json(path / "tokenizer_config.json"), read_json(path / "tokenizer.json")
        try:
            ids = dict(fast["model"]["vocab"]) | {token["content"]: token["id"] for token in fast["added_tokens"]}
        except (KeyError, TypeError, ValueError):
            raise SeallmError(f"{path / 'tokenizer.json'} has no vocabulary of pieces and ids") from None
        eos = ids.get(_text(config.get("eos_token")))
        if eos is None:
            raise SeallmError(
                f"{path / 'tokenizer_config.json'}: eos_token is {config.get('eos_token')!r}, not a token"
            )
        turns = [ids[token] for token in END_OF_TURN if token in ids]
        return cls(
            path=path,
            size=max(ids.values()) + 1,
            bos_id=ids.get(_text(config.get("bos_token"))),
            eos_id=eos,
            pad_id=ids.get(_text(config.get("pad_token"))),
            stop_ids=tuple(dict.fromkeys([eos, *turns])),
        )

    def copy_to(self, directory: pathlib.Path) -> None:
        """Copies the files that are there."""
        for name in FILES:
            if (self.path / name).is_file():
                shutil.copyfile(self.path / name, directory / name)


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
