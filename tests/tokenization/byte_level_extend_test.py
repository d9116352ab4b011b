"""Extension of byte-level tokenizers: ids, reachability, counts, patterns, files."""

import json
import unicodedata

import hypothesis
import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization import continued_bpe
from seallm_jax.tokenization.byte_alphabet import from_alphabet, to_alphabet
from seallm_jax.tokenization.byte_level_extend import _admission
from seallm_jax.tokenization.byte_level_pattern import mark_aware, pattern_drift
from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer, backend
from seallm_jax.tokenization.extend import Extension, extend_tokenizer
from seallm_jax.tokenization.fertility import identity_rate, measure
from seallm_jax.tokenization.scripts import script_guard
from tests.tokenization.byte_level_tokenizer_test import automatic
from tests.tokenization.conftest import AWKWARD, EXTENSION_SIZE, texts_with_edges


def is_whole(piece):
    return "\ufffd" not in from_alphabet(piece).decode("utf-8", "replace")


def test_old_ids_stay_and_new_ones_follow(byte_base, byte_extension):
    extended = byte_extension.tokenizer
    assert byte_extension.base_size == byte_base.size and byte_extension.base_digest == byte_base.digest
    assert extended.size == byte_base.size + len(byte_extension.new_pieces) == byte_base.size + EXTENSION_SIZE
    assert [extended.piece(index) for index in range(byte_base.size)] == [
        byte_base.piece(index) for index in range(byte_base.size)
    ]
    for index, piece in enumerate(byte_extension.new_pieces, start=byte_base.size):
        assert extended.id_of(piece) == index
    assert extended.special_tokens == byte_base.special_tokens  # its own chat and padding tokens serve


def test_every_new_token_comes_out_of_its_text(byte_extension):
    extended = byte_extension.tokenizer
    parts = 0
    for index, piece in enumerate(byte_extension.new_pieces, start=byte_extension.base_size):
        assert extended.encode_piece(piece) == [index]
        if is_whole(piece):
            assert extended.encode(from_alphabet(piece).decode()) == [index]
        else:
            parts += 1
            assert is_whole(piece[:1]) or from_alphabet(piece)[0] >= 0xC2  # it begins with a character
    assert parts < len(byte_extension.new_pieces) / 10


def test_sources_spell_the_new_tokens(byte_base, byte_extension):
    for piece, ids in zip(byte_extension.new_pieces, byte_extension.source_ids, strict=True):
        assert b"".join(byte_base.piece_bytes(index) for index in ids) == from_alphabet(piece)
        assert len(ids) > 1


@hypothesis.settings(
    deadline=None, max_examples=150, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(text=texts_with_edges)
def test_every_string_survives(byte_base, byte_extension, text):
    extended = byte_extension.tokenizer
    ids = extended.encode(text)
    assert extended.decode(ids) == text
    ground = byte_base if extended.spec["pre_tokenizer"] == byte_base.spec["pre_tokenizer"] else mark_aware(byte_base)
    if max(ids, default=0) < byte_base.size:
        assert ids == ground.encode(text)


@pytest.mark.parametrize("pretokenizer", ["base", "mark_aware"])
def test_the_learner_counts_what_the_encoder_does(byte_base, new_texts, pretokenizer, monkeypatch):
    """Before rare pieces are pruned, the frequencies are those of the encoded training text."""
    monkeypatch.setattr(continued_bpe, "prune", lambda learned, minimum_frequency: learned)
    found = extend_tokenizer(byte_base, new_texts, 1500, minimum_frequency=2, pretokenizer=pretokenizer)
    encoded = found.tokenizer.encode_batch([text for texts in new_texts.values() for text in texts])
    counts = np.bincount(np.concatenate(encoded), minlength=found.tokenizer.size)
    assert counts[found.base_size :].tolist() == list(found.frequencies)


def test_marks_no_longer_cut_where_asked(byte_base, new_texts, monkeypatch):
    texts = {"km": new_texts["km"]}
    sizes, said = {}, []
    progress = Progress.silent()
    monkeypatch.setattr(progress, "say", said.append)
    for pretokenizer in ("base", "mark_aware"):
        found = extend_tokenizer(byte_base, texts, 600, pretokenizer=pretokenizer, progress=progress)
        sizes[pretokenizer] = measure(found.tokenizer, [text for code in texts for text in texts[code]]).tokens
    assert sizes["mark_aware"] < 0.9 * sizes["base"]
    drift = pattern_drift(byte_base, texts)["km"]
    assert f"because of the mark-aware pattern alone: km {drift:.1%}" in "\n".join(said)


def test_auto_tokenizer_gives_the_same_ids(byte_extension, new_texts, tmp_path):
    byte_extension.save(tmp_path)
    fast = automatic(tmp_path)
    texts = [text for text in AWKWARD if "<" not in text]
    texts += [text for documents in new_texts.values() for text in documents[:10]]
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    expected = [ids.tolist() for ids in byte_extension.tokenizer.encode_batch(texts)]
    assert fast(texts, add_special_tokens=False)["input_ids"] == expected
    assert fast.decode(fast("ok<|im_end|>")["input_ids"], skip_special_tokens=True) == "ok"
    loaded = Extension.load(tmp_path)
    assert loaded.tokenizer.digest == byte_extension.tokenizer.digest
    assert loaded.new_pieces == byte_extension.new_pieces and loaded.frequencies == byte_extension.frequencies


@pytest.mark.parametrize(("kind", "same"), [("qwen3", True), ("llama", True), ("qwen2", False)])
def test_what_auto_tokenizer_makes_of_the_mark_aware_pattern_beside_a_model(byte_base, kind, same, tmp_path):
    """transformers 5 rebuilds the tokenizer of model type qwen2 from its vocabulary; the note says so."""
    transformers = pytest.importorskip("transformers")
    changed = mark_aware(byte_base)
    changed.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "transformers_version": "5.0.0"}))
    words = changed.notes[-1]
    assert "model_type qwen2" in words and "PreTrainedTokenizerFast" in words
    cuts = [len(word) for word, _ in changed._backend.pre_tokenizer.pre_tokenize_str("น้ำ")]
    assert len(cuts) == 1
    by_class = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert len(by_class.backend_tokenizer.pre_tokenizer.pre_tokenize_str("น้ำ")) == 1
    found = automatic(tmp_path).backend_tokenizer.pre_tokenizer.pre_tokenize_str("น้ำ")
    if int(transformers.__version__.split(".")[0]) >= 5:
        assert (len(found) == 1) == same


def test_protected_text_keeps_its_ids(byte_base, sample_texts, new_texts):
    latin = {code: texts for code, texts in new_texts.items() if code in ("id", "vi", "th")}
    english = sample_texts["en"]
    by_text = extend_tokenizer(byte_base, latin, 300, protected_texts=english)
    by_script = extend_tokenizer(byte_base, latin, 300, protected_scripts=["ASCII"])
    free = extend_tokenizer(byte_base, latin, 300)
    rates = [identity_rate(byte_base, found.tokenizer, english) for found in (free, by_text, by_script)]
    assert rates[0] < rates[1] and rates[0] < rates[2]
    plain = [line for text in english for line in text.split("\n") if line.isascii()]
    assert identity_rate(byte_base, by_script.tokenizer, plain) == 1
    assert not any(from_alphabet(piece).isascii() for piece in by_script.new_pieces)


def test_a_base_without_chat_tokens_gets_them(byte_base, new_texts, tmp_path):
    spec = json.loads(json.dumps(byte_base.spec))
    spec["added_tokens"] = spec["added_tokens"][:1]
    bare = ByteLevelTokenizer(spec, {"eos_token": "<|endoftext|>"})
    found = extend_tokenizer(bare, new_texts, 50)
    assert found.new_pieces[:3] == ("<|im_start|>", "<|im_end|>", "<pad>")
    tokenizer = found.tokenizer
    assert tokenizer.special_tokens["<|im_start|>"] == bare.size
    assert tokenizer.piece(tokenizer.pad_id) == "<pad>" and tokenizer.stop_ids == (bare.size - 1, bare.size + 1)
    assert "<|im_end|>" in tokenizer.chat_template and found.frequencies[:3] == (0, 0, 0)
    found.save(tmp_path)
    assert automatic(tmp_path)("<|im_start|>")["input_ids"] == [bare.size]
    with pytest.raises(SeallmError, match="no room for the chat tokens"):
        extend_tokenizer(bare, new_texts, 2)


def test_size_budgets_and_padding(byte_base, new_texts):
    padded = extend_tokenizer(byte_base, new_texts, 100, pad_to=128)
    assert padded.tokenizer.size % 128 == 0
    budgets = {"th": 30, "id": 20}
    found = extend_tokenizer(byte_base, {code: new_texts[code] for code in budgets}, None, budgets=budgets)
    assert all(found.tokens_by_language()[code] <= budget for code, budget in budgets.items())
    with pytest.raises(SeallmError, match="the text supports"):
        extend_tokenizer(byte_base, {"th": ["กา กา กา"]}, 100, strict=True)
    with pytest.raises(SeallmError, match="no pretokenizer 'x'"):
        extend_tokenizer(byte_base, new_texts, 10, pretokenizer="x")
    with pytest.raises(SeallmError, match="there is no text"):
        extend_tokenizer(byte_base, {}, 10)


def test_which_pieces_may_be_made(byte_base):
    admits = _admission(byte_base, script_guard(()))
    khmer = to_alphabet("ក".encode())
    assert admits(khmer) and admits(khmer + khmer[:2]) and admits(khmer[:2])
    assert not admits(khmer[1:]) and not admits(khmer[1:] + khmer)
    assert (
        admits(khmer * 16)
        and not admits(khmer * 17)
        and not admits("\u0120the" if byte_base.id_of("\u0120the") else "a")
    )
    guarded = _admission(byte_base, script_guard(["Latin"]))
    vietnamese = to_alphabet("ế".encode())
    assert guarded(khmer) and guarded(khmer[:2]) and not guarded(vietnamese) and not guarded("zq")
    assert not guarded(vietnamese[:2])


def test_merges_with_ignore_merges_are_reached_all_the_same(byte_base, new_texts):
    """Llama 3's flag would hide a piece that no merge reaches; new pieces are checked without it."""
    spec = json.loads(json.dumps(byte_base.spec))
    spec["model"]["ignore_merges"] = True
    found = extend_tokenizer(ByteLevelTokenizer(spec, byte_base.config), new_texts, 100)
    spec = found.tokenizer.spec
    merging = backend(spec | {"model": spec["model"] | {"ignore_merges": False}}).model
    for index, piece in enumerate(found.new_pieces, start=found.base_size):
        assert [token.id for token in merging.tokenize(piece)] == [index]


@pytest.mark.parametrize("name", ["qwen", "tekken"])
def test_the_real_tokenizers_extend(request, name, new_texts, tmp_path):
    base = request.getfixturevalue(name)
    found = extend_tokenizer(base, new_texts, 60, pretokenizer="mark_aware" if name == "qwen" else "base")
    texts = [unicodedata.normalize("NFC", text) for documents in new_texts.values() for text in documents[:5]]
    encoded = found.tokenizer.encode_batch(texts)
    assert sum(map(len, encoded)) < sum(map(len, base.encode_batch(texts)))
    assert [found.tokenizer.decode(ids) for ids in encoded] == texts
    missing = ["<|im_start|>", "<|im_end|>"] if name == "tekken" else []
    assert list(found.new_pieces[: len(missing)]) == missing and "<pad>" not in found.new_pieces
    found.save(tmp_path)
    assert automatic(tmp_path)(texts, add_special_tokens=False)["input_ids"] == [ids.tolist() for ids in encoded]
