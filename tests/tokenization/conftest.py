"""Awkward text; a small English base and its extension, learned once from the embedded sample."""

import dataclasses
import json

import hypothesis.strategies as st
import pytest

from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.extend import extend_tokenizer
from seallm_jax.tokenization.extension_settings import ExtensionSettings
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer

EXTENSION_SIZE = 600
AWKWARD = [
    "",
    " ",
    "   leading and trailing   ",
    "\n",
    "a\r\nb\rc\n\n",
    "\ttab\t",
    "\0",
    "a\0b",
    "\u2581",
    "\u2581 \u2581a",
    " \u2581",
    "a\u2581\u2581 b\u2581",
    "\u2047 \u2585 <unk> <0x41> \ufffd",
    "<s>a</s><pad><|im_start|>user<|im_end|>",
    "\ufeffBOM",
    "ภาษาไทย น้ำ ๑๒๓",
    "ພາສາລາວ\u200bແຍກ\u200bຄຳ",
    "ភាសាខ្មែរ\u200b។",
    "မြန်မာ၊ ဘာသာ",
    "👩‍👩‍👧 🇹🇭 e\u0301",
    "\U0010ffff\U00010000",
]
texts_with_edges = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from([*AWKWARD, " ", "a", "ก", "ា", "\u200b", "\u2581"]), max_size=8).map("".join),
)


def extension_settings(**changes):
    """The defaults of `extend_tokenizer` with these changes."""
    defaults = {"size": 100, "control": (), "guard": lambda piece: True, "budgets": {}, "progress": Progress.silent()}
    names = {field.name for field in dataclasses.fields(ExtensionSettings)}
    shared = {name: value for name, value in extend_tokenizer.__kwdefaults__.items() if name in names}
    return ExtensionSettings(**(shared | defaults | changes))


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
    return SentencePieceTokenizer(proto.SerializeToString())


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


def packaged(package, *path):
    """A file inside an installed package, found without importing the package."""
    import importlib.util
    import pathlib

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    file = pathlib.Path(spec.origin).parent.joinpath(*path)
    if not file.exists():
        pytest.skip(f"this {package} has no {'/'.join(path)}")
    return file


@pytest.fixture(scope="session")
def qwen_file():
    return packaged("dashscope", "resources", "qwen.tiktoken")


@pytest.fixture(scope="session")
def tekken_file():
    return packaged("mistral_common", "data", "tekken_240911.json")


@pytest.fixture(scope="session")
def qwen(qwen_file):
    """Qwen's tokenizer, from the dashscope package."""
    return Tokenizer.load(qwen_file)


@pytest.fixture(scope="session")
def tekken(tekken_file):
    """Mistral's tekken, from the mistral-common package."""
    return Tokenizer.load(tekken_file)


@pytest.fixture(
    scope="session",
    params=["base", "prefixed_base", "extension", "prefixed_extension", "byte_base", "qwen", "tekken"],
)
def every_tokenizer(request):
    """The same, and the byte-level ones."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, Tokenizer) else found.tokenizer


@pytest.fixture(scope="session")
def byte_folder(sample_texts, tmp_path_factory):
    """A small English byte-level BPE learned by `tokenizers`, in a folder as Qwen's: NFC, no BOS, own chat tokens."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    from seallm_jax.tokenization.rank_files import QWEN_PATTERN

    fast = tokenizers.Tokenizer(models.BPE())
    fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(sample_texts["en"], trainer)
    fast.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast.add_tokens(["<tool_call>"])
    folder = tmp_path_factory.mktemp("byte_level")
    fast.save(str(folder / "tokenizer.json"))
    config = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "errors": "replace"}
    config |= {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 4096}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def byte_base(byte_folder):
    return Tokenizer.load(byte_folder)


@pytest.fixture(scope="session", params=["base", "mark_aware"])
def byte_extension(request, byte_base, new_texts):
    return extend_tokenizer(byte_base, new_texts, EXTENSION_SIZE, pretokenizer=request.param)
