"""Rank files against the libraries that read them: tiktoken, and mistral-common's Tekkenizer."""

import base64
import json

import hypothesis
import hypothesis.strategies as st
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.byte_alphabet import to_alphabet
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer
from seallm_jax.tokenization.rank_files import QWEN_PATTERN, merges_of_ranks, rank_spec
from seallm_jax.tokenization.tokenizer import Tokenizer
from tests.tokenization.conftest import AWKWARD, texts_with_edges


@pytest.fixture(scope="module")
def qwen_oracle(qwen_file):
    tiktoken = pytest.importorskip("tiktoken")
    lines = [line.split() for line in qwen_file.read_bytes().splitlines()]
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
    return tiktoken.Encoding("qwen", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens={}).encode_ordinary


@pytest.fixture(scope="module")
def tekken_oracle(tekken_file):
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    oracle = tekken.Tekkenizer.from_file(tekken_file)
    return lambda text: oracle.encode(text, bos=False, eos=False)


def texts_of(sample_texts):
    return [*AWKWARD, *(document for documents in sample_texts.values() for document in documents[:20])]


def test_qwen_gives_the_ids_of_tiktoken(qwen, qwen_oracle, sample_texts):
    texts = texts_of(sample_texts)
    assert [ids.tolist() for ids in qwen.encode_batch(texts)] == [qwen_oracle(text) for text in texts]


def test_tekken_gives_the_ids_of_mistral_common(tekken, tekken_oracle, sample_texts):
    texts = texts_of(sample_texts)
    assert [ids.tolist() for ids in tekken.encode_batch(texts)] == [tekken_oracle(text) for text in texts]


# The two regex engines know different versions of Unicode, so letters that are new to one of them may be cut otherwise.
OLD_LETTERS = st.characters(max_codepoint=0x1DFF, exclude_categories=["Cs", "Cn"])


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(
    text=st.one_of(st.text(OLD_LETTERS), texts_with_edges.filter(lambda text: max(text, default="") < "\u1e00"))
)
def test_every_string_gets_the_ids_of_the_oracles(qwen, tekken, qwen_oracle, tekken_oracle, text):
    assert qwen.encode(text) == qwen_oracle(text)
    assert tekken.encode(text) == tekken_oracle(text)


def test_special_tokens(qwen, tekken):
    assert (qwen.size, qwen.bos_id, qwen.eos_id, qwen.stop_ids) == (151851, None, 151643, (151643, 151645))
    assert (qwen.begin_id, qwen.end_id, qwen.pad_id, qwen.unk_id) == (151643, 151643, 151643, None)
    assert qwen.special_tokens["<|extra_204|>"] == 151850
    assert tekken.size == 131072
    assert (tekken.unk_id, tekken.bos_id, tekken.eos_id, tekken.pad_id) == (0, 1, 2, 11)
    assert (tekken.begin_id, tekken.end_id) == (1, 2)
    assert tekken.special_tokens["[INST]"] == 3 and tekken.special_tokens["<SPECIAL_999>"] == 999
    assert "<unk>" not in tekken.mergeable_pieces


def test_the_real_files_are_merges_throughout(qwen, tekken):
    assert len(qwen.spec["model"]["merges"]) == 151643 - 256
    assert len(tekken.spec["model"]["merges"]) == 131072 - 1000 - 256


def test_the_merges_of_a_learned_tokenizer_come_back(byte_base):
    pieces = sorted(byte_base.mergeable_pieces, key=byte_base.id_of)
    assert [list(merge) for merge in merges_of_ranks(pieces)] == byte_base.spec["model"]["merges"]


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    words=st.lists(st.text("abc", min_size=2, max_size=6), min_size=1, max_size=30, unique=True),
    text=st.text("abc", max_size=30),
)
def test_pieces_after_their_parts_give_the_ids_of_tiktoken(words, text):
    """Also pieces that no merge reaches, which come out only as whole words."""
    tiktoken = pytest.importorskip("tiktoken")
    pieces = [*(bytes([byte]) for byte in range(256)), *(word.encode() for word in sorted(words, key=len))]
    spec = rank_spec(pieces, QWEN_PATTERN, ["<s>"], first_special=len(pieces))
    ours = ByteLevelTokenizer(spec, {"eos_token": "<s>"})
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    oracle = tiktoken.Encoding("t", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens={})
    assert ours.encode(text) == oracle.encode_ordinary(text)
    assert spec["model"]["vocab"][to_alphabet(b"a")] == ord("a")


def test_files_that_are_no_rank_files_are_refused(tmp_path):
    (tmp_path / "a.tiktoken").write_text("what is this\n")
    with pytest.raises(SeallmError, match="is not a tiktoken rank file"):
        Tokenizer.load(tmp_path / "a.tiktoken")
    (tmp_path / "a.tiktoken").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(SeallmError, match=r"has 2 pieces and is not Qwen's rank file.*tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tekken.json").write_text(json.dumps({"vocab": [], "config": {}}))
    with pytest.raises(SeallmError, match=r"is not a tekken\.json: KeyError"):
        Tokenizer.load(tmp_path)
