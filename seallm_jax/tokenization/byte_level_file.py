"""Reads and checks byte-level BPE tokenizers: tokenizer.json, tekken.json and tiktoken rank files."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_json
from seallm_jax.tokenization.byte_alphabet import ALPHABET, UNUSED_BYTES
from seallm_jax.tokenization.rank_files import read_tekken, read_tiktoken
from seallm_jax.tokenization.tokenizer_config import read_tokenizer_config, saved_template

TOKENIZER_NAME = "tokenizer.json"
TEKKEN_NAME = "tekken.json"
_CUTS = ("Split", "Digits", "Punctuation")  # pre-tokenizers that may stand before `ByteLevel`
NFC_NOTE = "its NFC normalizer is not applied, so that text comes back as it was; ids agree for text that is in NFC"


def read_byte_level(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a folder with tokenizer.json, tekken.json or one `*.tiktoken` file, or such a file.

    Returns:
      The arguments of `ByteLevelTokenizer`: `spec` is the contents of tokenizer.json with merges as pairs of pieces;
      `config` those of tokenizer_config.json, with what only special_tokens_map.json says.

    Raises:
      SeallmError: nothing there, not byte-level BPE, or a tokenizer that loses text.
    """
    path = _find(pathlib.Path(path))
    if path.suffix == ".tiktoken":
        spec, config = read_tiktoken(path)
        return {"spec": spec, "config": config, "notes": _notes(spec, str(path)), "source": str(path)}
    contents = read_json(path)
    if not isinstance(contents, dict) or not ("model" in contents or "vocab" in contents):
        raise SeallmError(f"{path} is neither a tokenizer.json nor a tekken.json")
    if "model" not in contents:
        spec, config = read_tekken(contents, path)
        return {"spec": spec, "config": config, "source": str(path)}
    folder = path.parent
    names = folder / "special_tokens_map.json"
    config = (read_json(names) if names.exists() else {}) | read_tokenizer_config(folder)
    spec, notes = check_spec(contents, str(path))
    return {
        "spec": spec,
        "config": config,
        "chat_template": saved_template(folder, config),
        "notes": notes,
        "source": str(folder),
    }


def check_spec(spec: dict[str, Any], source: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The contents of a tokenizer.json in one form, and notes on what is not taken as it stands.

    Raises:
      SeallmError: not byte-level BPE, or decode(encode(x)) would differ from x.
    """
    model = spec["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "an unknown")
    pre_tokenizer = _keeping(spec.get("pre_tokenizer"))
    steps = _steps(pre_tokenizer, "pretokenizers")
    if kind == "BPE" and (model.get("byte_fallback") or not any(step["type"] == "ByteLevel" for step in steps)):
        raise SeallmError(
            f"{source} is a BPE of characters, not of bytes (SentencePiece as tokenizer.json); put the tokenizer.model "
            "that it was made from beside it"
        )
    if kind != "BPE":
        raise SeallmError(f"{source} is a {kind} tokenizer; only BPE is supported, byte-level or SentencePiece")
    broken = [*_broken_normalizer(spec), *_broken_pre_tokenizer(steps), *_broken_model(spec)]
    if broken:
        raise SeallmError(f"{source} loses text: {', '.join(broken)}; decode(encode(x)) would differ from x")
    merges = [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in model["merges"]]
    checked = {
        "version": spec.get("version", "1.0"),
        "truncation": None,
        "padding": None,
        "added_tokens": spec.get("added_tokens") or [],
        "normalizer": spec.get("normalizer"),
        "pre_tokenizer": pre_tokenizer,
        "post_processor": spec.get("post_processor"),
        "decoder": spec["decoder"],
        "model": model | {"type": "BPE", "merges": merges},
    }
    return checked, _notes(checked, source)


def _notes(spec: dict[str, Any], source: str) -> tuple[str, ...]:
    return (f"{source}: {NFC_NOTE}",) if _steps(spec["normalizer"], "normalizers") else ()


def _find(path: pathlib.Path) -> pathlib.Path:
    if path.is_dir():
        found = [path / TOKENIZER_NAME, path / TEKKEN_NAME, *sorted(path.glob("*.tiktoken"))]
        existing = [file for file in found if file.exists()]
        if not existing:
            raise SeallmError(f"{path} has no tokenizer.model, {TOKENIZER_NAME}, {TEKKEN_NAME} or *.tiktoken")
        return existing[0]
    if not path.exists():
        raise SeallmError(f"{path} does not exist; give a tokenizer's folder or file")
    return path


def _steps(step: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, out of their sequences."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    return [inner for each in step[name] for inner in _steps(each, name)]


def _keeping(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """The pre-tokenizer, keeping what lies between matches where it takes the matches and would remove the rest."""
    if step is None:
        return None
    if step["type"] == "Sequence":
        return step | {"pretokenizers": [_keeping(inner) for inner in step["pretokenizers"]]}
    if step["type"] == "Split" and step["behavior"] == "Removed" and step.get("invert"):
        return step | {"behavior": "Isolated", "invert": False}
    return step


def _broken_normalizer(spec: dict[str, Any]) -> list[str]:
    steps = _steps(spec.get("normalizer"), "normalizers")
    return [f"it normalises text ({step['type']})" for step in steps if step["type"] != "NFC"]


def _broken_pre_tokenizer(steps: list[dict[str, Any]]) -> list[str]:
    broken = []
    for step in steps[:-1]:
        if step["type"] not in _CUTS:
            broken.append(f"its pre-tokenizer {step['type']} is not known to keep text")
        elif step.get("behavior") == "Removed":
            broken.append(f"its pre-tokenizer {step['type']} removes text")
    last = steps[-1]
    if last["type"] != "ByteLevel":
        broken.append(f"its pre-tokenizer ends with {last['type']}, not ByteLevel")
    elif last.get("add_prefix_space", True):
        broken.append("it puts a space before text that has none (add_prefix_space; set it to false)")
    return broken


def _broken_model(spec: dict[str, Any]) -> list[str]:
    model, added = spec["model"], spec.get("added_tokens") or []
    broken = []
    decoders = _steps(spec.get("decoder"), "decoders")
    if [step["type"] for step in decoders] != ["ByteLevel"]:
        broken.append(f"its decoder is {'+'.join(step['type'] for step in decoders) or 'missing'}, not ByteLevel")
    if model.get("dropout"):
        broken.append("it has BPE-dropout switched on")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        broken.append("it marks the beginnings or ends of words")
    if any(token.get("lstrip") or token.get("rstrip") for token in added):
        broken.append("added tokens strip the spaces around them")
    names = {token["content"] for token in added}
    pieces = model["vocab"].keys() - names
    if missing := [byte for byte in range(256) if ALPHABET[byte] not in pieces and byte not in UNUSED_BYTES]:
        broken.append(f"{len(missing)} bytes have no piece (0x{missing[0]:02X} the first)")
    if strange := next((piece for piece in pieces if set(piece) - set(ALPHABET)), None):
        broken.append(f"its piece {strange!r} is not in the byte alphabet")
    return broken
