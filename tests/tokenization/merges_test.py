"""The merge learner against SentencePiece, which is the oracle for what the pieces do in text."""

import random

import numpy as np
import pytest
import tokenizers

from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.extend import extend_tokenizer
from seallm_jax.tokenization.huggingface import huggingface_files
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.merges import MergeLearner
from seallm_jax.tokenization.segments import SymbolTable
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer

ALPHABETS = [
    "ab",
    "abc ",
    "ab'. -",
    "กาขั ",
    "ab1 \n",
    "abกา\u200b ",
    "-=. ",
    "aáé\u0301 ",
    "ក្ខា\u200d ",
    "日本のa ",
    "a\u2581 ",
]


def counts_of_new_pieces(extension, texts):
    ids = np.concatenate(extension.tokenizer.encode_batch(texts, threads=1))
    return np.bincount(ids, minlength=extension.tokenizer.size)[extension.base_size :].tolist()


def test_frequencies_are_those_of_sentencepiece(extension, prefixed_extension, new_texts):
    """What the learner counts at the end is what SentencePiece makes of the text: the two agree on every token."""
    texts = [text for documents in new_texts.values() for text in documents]
    for found in (extension, prefixed_extension):
        assert counts_of_new_pieces(found, texts) == list(found.frequencies)


@pytest.mark.parametrize("seed", range(60))
def test_random_text_with_many_overlaps(seed):
    rng = random.Random(seed)
    alphabet = ALPHABETS[seed % len(ALPHABETS)]

    def texts(count, letters):
        return ["".join(rng.choice(letters) for _ in range(rng.randint(0, 40))) for _ in range(count)]

    base = learn_tokenizer([*texts(30, rng.choice([alphabet, rng.choice(ALPHABETS)])), "x"], 262 + rng.randint(10, 40))
    if seed % 3 == 0:
        proto = base.copy_proto()
        proto.normalizer_spec.add_dummy_prefix = True
        base = SentencePieceTokenizer(proto.SerializeToString())
    training = {"aa": texts(20, alphabet), "bb": texts(10, rng.choice(ALPHABETS))}
    found = extend_tokenizer(
        base,
        training,
        rng.randint(1, 60),
        minimum_frequency=rng.randint(1, 4),
        alpha=rng.random(),
        protected_texts=texts(5, alphabet) if seed % 4 == 0 else (),
    )
    known = [text for documents in training.values() for text in documents]
    assert counts_of_new_pieces(found, known) == list(found.frequencies)
    fast = tokenizers.Tokenizer.from_str(huggingface_files(found.tokenizer)["tokenizer.json"])
    for text in known + texts(20, alphabet):
        ids = found.tokenizer.encode(text)
        assert found.tokenizer.decode(ids) == text
        if "\u2581" not in text:
            assert fast.encode(text, add_special_tokens=False).ids == ids


@pytest.mark.parametrize("language", ["en", "id", "th", "km"])
def test_from_characters_on_it_learns_what_sentencepiece_learns(sample_texts, language):
    """On top of a base without merges, continued BPE is BPE: SentencePiece's trainer is the oracle, up to ties."""
    texts = sample_texts[language]
    alphabet = len({c for text in texts for c in text if c not in "\n "}) + 1
    characters = learn_tokenizer(texts, 262 + alphabet)
    whole = learn_tokenizer(texts, characters.size + 300)
    expected = set(whole.mergeable_pieces) - set(characters.mergeable_pieces)
    found = extend_tokenizer(characters, {language: texts}, 300, alpha=1.0, minimum_frequency=1)
    assert len(expected & set(found.new_pieces)) > 0.9 * len(expected)
    tokens = [sum(map(len, tokenizer.encode_batch(texts))) for tokenizer in (whole, found.tokenizer)]
    assert abs(tokens[0] - tokens[1]) < 0.01 * tokens[0]


def test_long_phrases_are_no_burden(base):
    """100,000 characters without a space in one word."""
    rng = random.Random(0)
    syllables = ["กา", "ขี", "คน", "งู", "จะ", "ดี", "ตา", "ไป", "มา", "ใน"]
    phrase = "".join(rng.choice(syllables) for _ in range(50_000))
    table = SymbolTable(base)
    words = [table.words([phrase], threads=1)]
    learner = MergeLearner(
        table,
        base.mergeable_pieces,
        words,
        [1.0],
        protected_ratio=0.0,
        size=100,
        minimum_frequency=2,
        maximum_length=16,
    )
    with Progress.silent().task("learning") as advance:
        pieces = learner.learn(advance)
    assert len(pieces) == 100
    assert set(syllables) <= {piece.text for piece in pieces}


def test_repetitions_with_several_ways_are_refused(base):
    """aaa from (a, aa) or (aa, a) would depend on the library; aaaa from (aa, aa) would not."""
    found = extend_tokenizer(base, {"th": ["ๆ" * 50] * 20}, 10)
    assert set(found.new_pieces) == {"ๆ", "ๆๆ", "ๆๆๆๆ", "ๆ" * 8, "ๆ" * 16}
