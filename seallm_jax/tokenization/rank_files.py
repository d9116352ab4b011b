"""Byte-level BPE from rank files: tekken.json of Mistral AI and tiktoken files of Qwen.

A rank file lists pieces by the order in which they were learned and no merges; its readers join the two neighbours
whose union has the lowest rank. The merge behind a piece is what that rule leaves of its bytes when only lower ranks
may be used: two pieces, or the piece comes about only as a whole word, which `ignore_merges` covers.
"""

from __future__ import annotations

import base64
import binascii
import pathlib
from collections.abc import Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_alphabet import to_alphabet

_QWEN_PIECES = 151643
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
# what the first tekken files leave out
_TEKKEN_SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
]


def read_tiktoken(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json for Qwen's rank file: its pattern, special tokens and normalizer.

    Raises:
      SeallmError: not a rank file, or another model's: the file says nothing of pattern and special tokens.
    """
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        pieces = [base64.b64decode(piece, validate=True) for piece, _ in lines]
        ranks = [int(rank) for _, rank in lines]
    except (ValueError, binascii.Error) as error:
        raise SeallmError(f"{path} is not a tiktoken rank file: {error}") from None
    except OSError as error:
        raise SeallmError(f"cannot read {path}: {error.strerror or error}") from error
    if ranks != list(range(_QWEN_PIECES)):
        raise SeallmError(
            f"{path} has {len(pieces)} pieces and is not Qwen's rank file, the only one whose pattern and special "
            "tokens are known; use the model's Hugging Face folder with tokenizer.json"
        )
    spec = rank_spec(pieces, QWEN_PATTERN, _QWEN_SPECIAL, first_special=_QWEN_PIECES)
    spec["normalizer"] = {"type": "NFC"}  # which Qwen's code applies
    return spec, {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


def read_tekken(contents: dict[str, Any], path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json for the contents of a tekken.json: special tokens come first.

    Raises:
      SeallmError: something is missing.
    """
    try:
        config = contents["config"]
        count, size = config["default_num_special_tokens"], config["default_vocab_size"]
        ordered = sorted(contents["vocab"], key=lambda token: token["rank"])[: size - count]
        pieces = [base64.b64decode(token["token_bytes"]) for token in ordered]
        pattern = config["pattern"]
        declared = contents.get("special_tokens")
        names = {token["rank"]: token["token_str"] for token in declared or ()} or dict(enumerate(_TEKKEN_SPECIAL))
    except (KeyError, TypeError, binascii.Error) as error:
        raise SeallmError(f"{path} is not a tekken.json: {type(error).__name__} {error}") from None
    special = [names.get(index, f"<SPECIAL_{index}>") for index in range(count)]
    spec = rank_spec(pieces, pattern, special, first_special=0)
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<s>", "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [special.index("<s>")], "tokens": ["<s>"]}},
    }
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return spec, {name: token for name, token in tokens.items() if token in special}


def rank_spec(pieces: Sequence[bytes], pattern: str, special: Sequence[str], *, first_special: int) -> dict[str, Any]:
    """Contents of a tokenizer.json that gives the ids of tiktoken.

    Args:
      pieces: by rank.
      pattern: regular expression that cuts text into words.
      special: names of the special tokens.
      first_special: id of the first; 0 puts the pieces behind them.
    """
    offset = len(special) if first_special == 0 else 0
    written = [to_alphabet(piece) for piece in pieces]
    vocabulary = {piece: index for index, piece in enumerate(written, start=offset)}
    tokens = dict(zip(special, range(first_special, first_special + len(special)), strict=True))
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": token} | flags for token, index in tokens.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, to_bytes]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": tokens | vocabulary,  # special tokens too, or the library would number them itself
            "merges": [list(merge) for merge in merges_of_ranks(written)],
        },
    }


def merges_of_ranks(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """The merges behind pieces given by rank, in their order; see the module's text.

    A piece must come after the pieces that it is made of, as learning makes it.
    """
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    merges = []
    for rank, piece in enumerate(pieces):
        if len(piece) == 1:
            continue
        parts = list(piece)
        while len(parts) > 2:
            joined = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
            lowest = min(joined)
            if lowest >= rank:
                break
            at = joined.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2 and parts[0] in ranks and parts[1] in ranks:
            merges.append((parts[0], parts[1]))
    return merges
