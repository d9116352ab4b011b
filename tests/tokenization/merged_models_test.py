"""All methods of extension that take pieces from elsewhere, against SentencePiece and `tokenizers`."""

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.extend import extend_tokenizer
from seallm_jax.tokenization.fertility import identity_rate, measure
from seallm_jax.tokenization.huggingface import huggingface_files
from seallm_jax.tokenization.merged_models import characters_first, train_model, train_models
from seallm_jax.tokenization.reachability import unreachable_tokens

SIZE = 300


@pytest.fixture(scope="module")
def donor(new_texts):
    return train_model([text for group in new_texts.values() for text in group], 1500, progress=Progress.silent())


@pytest.fixture(scope="module")
def found(prefixed_base, new_texts, donor):
    """Every method's extension of the same base with the same budget."""
    methods = {
        "donor": {"donors": [donor]},
        "merge": {},
        "append": {"donors": [donor]},
    }
    return {
        method: extend_tokenizer(prefixed_base, new_texts, SIZE, method=method, minimum_frequency=2, **options)
        for method, options in methods.items()
    }


@pytest.mark.parametrize("method", ["donor", "merge", "append"])
def test_old_ids_stay_and_the_budget_is_used(found, prefixed_base, method):
    extension = found[method]
    tokenizer = extension.tokenizer
    assert extension.method == method and tokenizer.size == prefixed_base.size + SIZE
    assert all(tokenizer.piece(index) == prefixed_base.piece(index) for index in range(prefixed_base.size))
    assert extension.new_pieces[:3] == ("<|im_start|>", "<|im_end|>", "<pad>")


@pytest.mark.parametrize("method", ["donor", "merge", "append"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@example(text="  กากา kucing\n\0 kucing\u200b ")
def test_nothing_is_lost(found, method, text):
    tokenizer = found[method].tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("method", ["donor", "merge", "append"])
def test_tokenizers_gives_the_same_ids(found, new_texts, sample_texts, method):
    tokenizer = found[method].tokenizer
    fast = tokenizers.Tokenizer.from_str(huggingface_files(tokenizer)["tokenizer.json"])
    texts = [text for group in (*new_texts.values(), sample_texts["en"]) for text in group]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert fast.encode(text, add_special_tokens=False).ids == ids.tolist()


def test_frequencies_are_those_of_sentencepiece(found, new_texts):
    texts = [text for group in new_texts.values() for text in group]
    for extension in found.values():
        ids = np.concatenate(extension.tokenizer.encode_batch(texts))
        counts = np.bincount(ids, minlength=extension.tokenizer.size)[extension.base_size :]
        assert counts.tolist() == list(extension.frequencies)


def test_only_append_leaves_tokens_out_of_reach(found, prefixed_base, donor):
    for method in ("donor", "merge"):
        assert unreachable_tokens(found[method].tokenizer, first=prefixed_base.size) == []
    assert set(found["donor"].new_pieces[3:]) <= set(donor)


def test_gain_beats_the_order_of_the_model(found, new_texts, prefixed_base):
    """Held to the same budget, choosing by gain on the text needs fewer tokens than appending."""
    texts = [text for group in new_texts.values() for text in group]
    tokens = {method: measure(extension.tokenizer, texts).tokens for method, extension in found.items()}
    assert tokens["donor"] < measure(prefixed_base, texts).tokens
    by_size = extend_tokenizer(prefixed_base, new_texts, SIZE, alpha=1.0)
    assert measure(by_size.tokenizer, texts).tokens < tokens["append"]


def test_merging_without_text(prefixed_base, new_texts, sample_texts):
    models = train_models({code: new_texts[code] for code in ("th", "id")}, SIZE, alpha=0.5, progress=Progress.silent())
    extension = extend_tokenizer(prefixed_base, {}, SIZE, method="merge", donors=models)
    assert unreachable_tokens(extension.tokenizer, first=prefixed_base.size) == []
    assert set(extension.new_pieces[3:]) <= set(models[0]) | set(models[1])
    for code in ("th", "id"):
        texts = sample_texts[code]
        assert measure(extension.tokenizer, texts).tokens < 0.85 * measure(prefixed_base, texts).tokens


def test_append_can_leave_a_script_alone(prefixed_base, donor, sample_texts):
    english = sample_texts["en"]
    free = extend_tokenizer(prefixed_base, {}, SIZE, method="append", donors=[donor])
    guarded = extend_tokenizer(prefixed_base, {}, SIZE, method="append", donors=[donor], protected_scripts=["Latin"])
    assert identity_rate(prefixed_base, free.tokenizer, english) < 0.9
    assert identity_rate(prefixed_base, guarded.tokenizer, english) == 1.0
    assert set(free.frequencies) == {0}


def test_the_size_is_a_multiple_when_asked(prefixed_base, new_texts, donor):
    for method, options in (("append", {"donors": [donor]}), ("donor", {"donors": [donor]}), ("merge", {})):
        found = extend_tokenizer(prefixed_base, new_texts, 50, method=method, pad_to=128, **options)
        assert found.tokenizer.size % 128 == 0 and len(found.new_pieces) >= 50


def test_characters_first():
    assert characters_first(["ab", "▁the", "a", "b"]) == ["a", "b", "ab", "▁the"]


def test_wrong_use(prefixed_base, new_texts, donor):
    with pytest.raises(SeallmError, match="no extension method 'magic'; use one of continued_bpe, donor, merge"):
        extend_tokenizer(prefixed_base, new_texts, 10, method="magic")
    with pytest.raises(SeallmError, match="'donor' needs a donor vocabulary"):
        extend_tokenizer(prefixed_base, new_texts, 10, method="donor")
    for method in ("merge", "append"):
        with pytest.raises(SeallmError, match="needs models, or text to train them on"):
            extend_tokenizer(prefixed_base, {"th": []}, 10, method=method)
    with pytest.raises(SeallmError, match="the models have 3 pieces that the base lacks, not 7"):
        extend_tokenizer(prefixed_base, {}, 10, method="append", donors=[["ก", "า", "กา"]], strict=True)
    with pytest.raises(SeallmError, match="'append' has no budgets"):
        extend_tokenizer(prefixed_base, new_texts, 10, method="append", donors=[donor], budgets={"th": 5})
    with pytest.raises(SeallmError, match="budgets need text"):
        extend_tokenizer(prefixed_base, {}, 10, method="merge", donors=[donor], budgets={"th": 5})
    with pytest.raises(SeallmError, match="is for byte-level tokenizers"):
        extend_tokenizer(prefixed_base, new_texts, 10, pretokenizer="mark_aware")
