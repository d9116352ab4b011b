"""Which tokenizer.json files are taken, and what is said of the others."""

import copy
import json

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_level_file import check_spec, read_byte_level
from seallm_jax.tokenization.byte_level_pattern import GPT2_PATTERN
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
from tests.tokenization.conftest import AWKWARD

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.fixture
def spec(byte_folder):
    return json.loads((byte_folder / "tokenizer.json").read_text())


def cut(pattern, behavior="Isolated", **more):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False} | more


def in_sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def test_a_folder_gives_configuration_template_and_names(byte_folder, tmp_path):
    for file in byte_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "special_tokens_map.json").write_text('{"unk_token": "<|endoftext|>", "eos_token": "<s>"}')
    read = read_byte_level(tmp_path)
    assert read["chat_template"] == "{{ messages }}" and len(read["notes"]) == 1
    assert read["config"]["unk_token"] == "<|endoftext|>" and read["config"]["eos_token"] == "<|im_end|>"
    assert read_byte_level(tmp_path / "tokenizer.json") == read


def test_merges_as_strings_and_as_pairs_are_the_same(spec):
    pairs, _ = check_spec(spec, "t")
    spec["model"]["merges"] = [" ".join(merge) for merge in spec["model"]["merges"]]
    assert check_spec(spec, "t")[0] == pairs


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        BYTE_LEVEL | {"use_regex": True},  # GPT-2
        in_sequence(cut(" ?[^(\\s|[.,!?…。，、।۔،])]+"), BYTE_LEVEL),  # BLOOM
        in_sequence(cut(r"\p{N}{1,3}"), cut(GPT2_PATTERN), BYTE_LEVEL),  # Llama 3, OLMo 2, DeepSeek: several cuts
        in_sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL | {"use_regex": True}),  # StarCoder
        in_sequence(cut(GPT2_PATTERN, "Removed", invert=True), BYTE_LEVEL),
    ],
)
def test_the_pre_tokenizers_of_known_models_keep_text(spec, byte_base, pre_tokenizer):
    import tokenizers

    checked, _ = check_spec(spec | {"pre_tokenizer": pre_tokenizer}, "t")
    ours = ByteLevelTokenizer(checked, byte_base.config)
    oracle = tokenizers.Tokenizer.from_str(json.dumps(spec | {"pre_tokenizer": pre_tokenizer, "normalizer": None}))
    for text in AWKWARD:
        ids = ours.encode(text)
        assert ours.decode(ids) == text
        if "<" not in text:  # the library reads control tokens from any text
            assert ids == oracle.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "is a Unigram tokenizer; only BPE"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "is a WordPiece tokenizer; only BPE"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, r"a BPE of characters.*put the tokenizer\.model"),
        ({"pre_tokenizer": None}, r"a BPE of characters.*put the tokenizer\.model"),
        ({"normalizer": {"type": "NFKC"}}, r"loses text: it normalises text \(NFKC\)"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}},
            r"normalises text \(Lowercase\)",
        ),
        ({"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}}, "puts a space before text"),
        ({"pre_tokenizer": in_sequence(cut(" ", "Removed"), BYTE_LEVEL)}, "Split removes text"),
        ({"pre_tokenizer": in_sequence({"type": "Whitespace"}, BYTE_LEVEL)}, "Whitespace is not known to keep"),
        ({"pre_tokenizer": in_sequence(BYTE_LEVEL, cut("a"))}, "ends with Split, not ByteLevel"),
        ({"decoder": {"type": "BPEDecoder"}}, "its decoder is BPEDecoder, not ByteLevel"),
        ({"decoder": None}, "its decoder is missing"),
    ],
)
def test_others_are_refused(spec, changes, message):
    with pytest.raises(SeallmError, match=message):
        check_spec(spec | changes, "t")


def test_models_that_lose_text_are_refused(spec):
    def refused(message, **changes):
        changed = copy.deepcopy(spec)
        changed["model"] |= changes
        with pytest.raises(SeallmError, match=message):
            check_spec(changed, "t")

    vocabulary = spec["model"]["vocab"]
    refused("BPE-dropout switched on", dropout=0.1)
    refused("marks the beginnings or ends", end_of_word_suffix="</w>")
    refused(
        r"1 bytes have no piece \(0x61", vocab={piece: index for piece, index in vocabulary.items() if piece != "a"}
    )
    refused("its piece 'กข' is not in the byte alphabet", vocab=vocabulary | {"กข": 9999})
    spec["added_tokens"][0]["rstrip"] = True
    refused("strip the spaces around them")


def test_missing_and_strange_files_are_named(tmp_path):
    with pytest.raises(SeallmError, match="nothing does not exist"):
        read_byte_level(tmp_path / "nothing")
    with pytest.raises(SeallmError, match=r"has no tokenizer\.model, tokenizer\.json, tekken\.json"):
        read_byte_level(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SeallmError, match=r"is neither a tokenizer\.json nor a tekken\.json"):
        read_byte_level(tmp_path)
