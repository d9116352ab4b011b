"""The tokenizer files of a Hugging Face folder: the ids that a model's config names, and a copy."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json

FAST, SETTINGS = "tokenizer.json", "tokenizer_config.json"
# everything that some tokenizer of transformers, mistral-common or tiktoken reads
PATTERNS = (
    "tokenizer.model*",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "*.tiktoken",
)
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>")


@dataclasses.dataclass(frozen=True)
class TokenizerFolder:
    """A folder with tokenizer.json and tokenizer_config.json, of SentencePiece or byte-level BPE.

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
        for name in (FAST, SETTINGS):
            if not (path / name).is_file():
                raise SeallmError(f"tokenizer folder {path} has no {name}; save the tokenizer there")
        config, fast = read_json(path / SETTINGS), read_json(path / FAST)
        try:
            ids = dict(fast["model"]["vocab"]) | {token["content"]: token["id"] for token in fast["added_tokens"]}
        except (KeyError, TypeError, ValueError):
            raise SeallmError(f"{path / FAST} has no vocabulary of pieces and ids") from None
        eos = ids.get(_text(config.get("eos_token")))
        if eos is None:
            raise SeallmError(f"{path / SETTINGS}: eos_token is {config.get('eos_token')!r}, not a token")
        turns = [ids[token] for token in END_OF_TURN if token in ids]
        return cls(
            path=path,
            size=max(ids.values()) + 1,
            bos_id=ids.get(_text(config.get("bos_token"))),
            eos_id=eos,
            pad_id=ids.get(_text(config.get("pad_token"))),
            stop_ids=tuple(dict.fromkeys([eos, *turns])),
        )

    @property
    def ids(self) -> dict[str, int | None]:
        """The ids as config.json names them."""
        return {"bos_token_id": self.bos_id, "eos_token_id": self.eos_id, "pad_token_id": self.pad_id}

    def copy_to(self, directory: pathlib.Path) -> None:
        """Copies the tokenizer's files."""
        copy_tokenizer(self.path, directory)


def copy_tokenizer(source: pathlib.Path, directory: pathlib.Path) -> None:
    """Copies the tokenizer files that `source` has, whatever their kind."""
    for pattern in PATTERNS:
        for file in sorted(source.glob(pattern)):
            target = directory / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def is_complete(directory: pathlib.Path) -> bool:
    """Whether an export can take the folder's tokenizer as it is."""
    return (directory / FAST).is_file() and (directory / SETTINGS).is_file()


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
