"""A small tokenizer of this package, and its directory for transformers."""

import json

import pytest

from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer


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
