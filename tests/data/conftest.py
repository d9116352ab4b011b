"""A small tokenizer of this package, and its directory for transformers."""

import json
import pathlib
import sys

import pytest

from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for row_pieces, in every import mode of pytest


@pytest.fixture(scope="session")
def sample_texts():
    """language -> documents of the embedded sample."""
    texts = {}
    for path in sorted(sample_path("corpus").glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        texts[path.stem] = [json.loads(line)["text"] for line in lines[:60]]
    return texts


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory, sample_texts):
    directory = tmp_path_factory.mktemp("tokenizer") / "saved"
    texts = [text for language in ("en", "id", "th", "km") for text in sample_texts[language]]
    learn_tokenizer(texts, 1200, seed=0, progress=Progress.silent()).save(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_directory):
    return Tokenizer.load(tokenizer_directory)


@pytest.fixture(scope="session")
def byte_level():
    """A byte-level tokenizer as Qwen's: no BOS, documents end with one token and chat turns with another."""
    from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
    from seallm_jax.tokenization.rank_files import QWEN_PATTERN, rank_spec

    pieces = [*(bytes([byte]) for byte in range(256)), b"in", b"as", b"aik", "เป".encode(), b"user", b"assistant"]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    spec = rank_spec(pieces, QWEN_PATTERN, special, first_special=len(pieces))
    return ByteLevelTokenizer(spec, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
