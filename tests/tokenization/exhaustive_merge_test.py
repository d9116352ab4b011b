"""SeaLLMs' Algorithm 1 against its pseudo-code, word for word."""

from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.exhaustive_merge import exhaustive_merge, vocab_extend
from seallm_jax.tokenization.training_words import TrainingWords
from tests.tokenization.conftest import extension_settings


def published(tokens, donor):
    """ExhaustiveMerge as it is printed in the paper."""
    tokens, new = list(tokens), []
    found = True
    while found:
        found = False
        for index in range(len(tokens) - 1):
            before, after = tokens[index], tokens[index + 1]
            if before is not None and after is not None and before + after in donor:
                tokens[index : index + 2] = [before + after]
                new.append(before + after)
                found = True
                break
    return new


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "c", None]), max_size=14),
    st.sets(st.text("abc", min_size=2, max_size=6), max_size=12),
)
def test_exhaustive_merge_is_the_published_one(tokens, donor):
    assert exhaustive_merge(tokens, donor) == published(tokens, donor)


def extend(base, texts, donor, minimum_frequency=1):
    training = TrainingWords.read(base, texts, ["ขวด"] * 9, extension_settings())
    return vocab_extend(
        training,
        frozenset(donor),
        base.mergeable_pieces.keys(),
        minimum_frequency=minimum_frequency,
        progress=Progress.silent(),
    )


def test_characters_subwords_and_words_of_the_donor(base):
    donor = {"ก", "า", "กา", "ขา", "กากา", "zzz"}
    assert extend(base, {"th": ["กากา กา"]}, donor) == {"ก", "า", "กา", "กากา"}
    assert extend(base, {"th": ["ขวด"]}, donor) == set()  # its characters are not the donor's


def test_pieces_that_exist_or_are_rare_are_not_new(base):
    texts = {"th": ["กา กา ขา"]}
    donor = {"ก", "ข", "า", "กา", "ขา", "▁the"}
    assert extend(base, texts, donor) == {"ก", "ข", "า", "กา", "ขา"}
    assert extend(base, texts, donor, minimum_frequency=2) == {"ก", "า", "กา"}
    assert extend(base, {"en": ["the the"]}, donor) == set()
