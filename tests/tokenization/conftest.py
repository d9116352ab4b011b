"""A small English base and its extension, learned once from the embedded sample."""

import json

import pytest

from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.extend import extend_tokenizer
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer

EXTENSION_SIZE = 600


def read_sample():
    files = sorted(sample_path("corpus").glob("*.jsonl"))
    return {
        path.stem: [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        for path in files
    }


@pytest.fixture(scope="session")
def sample_texts():
    return read_sample()


@pytest.fixture(scope="session")
def base(sample_texts):
    return learn_tokenizer(sample_texts["en"], 1024)


@pytest.fixture(scope="session")
def prefixed_base(base):
    """The same pieces with Llama 2's prefix space and without chat tokens, as an imported base has them."""
    proto = base.copy_proto()
    proto.normalizer_spec.add_dummy_prefix = True
    del proto.pieces[3:6]
    proto.trainer_spec.pad_id = -1
    return Tokenizer(proto.SerializeToString())


@pytest.fixture(scope="session")
def new_texts(sample_texts):
    return {language: texts for language, texts in sample_texts.items() if language != "en"}


@pytest.fixture(scope="session")
def extension(base, new_texts):
    return extend_tokenizer(base, new_texts, EXTENSION_SIZE)


@pytest.fixture(scope="session")
def prefixed_extension(prefixed_base, new_texts):
    return extend_tokenizer(prefixed_base, new_texts, EXTENSION_SIZE)


@pytest.fixture(scope="session", params=["base", "prefixed_base", "extension", "prefixed_extension"])
def any_tokenizer(request):
    """Each kind of tokenizer: learned and imported, as it is and extended."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, Tokenizer) else found.tokenizer


@pytest.fixture(scope="session")
def mistral():
    """Mistral 7B's SentencePiece model, from the mistral-common package."""
    import importlib.util
    import pathlib

    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        pytest.skip("mistral-common is not installed")
    path = pathlib.Path(spec.origin).parent / "data" / "tokenizer.model.v1"
    if not path.exists():
        pytest.skip("this mistral-common has no tokenizer.model.v1")
    return Tokenizer.load(path)
