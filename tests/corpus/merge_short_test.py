"""Joining short documents loses and repeats nothing."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.corpus.document import Document
from seallm_jax.corpus.merge_short import merge_short

DOCUMENTS = st.lists(
    st.builds(
        Document,
        st.text("abcกข", min_size=1, max_size=30),
        st.sampled_from(["id", "th", "km"]),
        st.integers(1, 99).map("a.jsonl:{}".format),
        st.just(""),
        st.sampled_from([None, 0.25, 0.5]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 80))
def test_nothing_is_lost_or_repeated_and_the_limit_holds(documents, maximum):
    merged = list(merge_short(documents, maximum))
    parts = collections.defaultdict(list)
    for document in merged:
        texts = document.text.split("\n\n")
        assert len(document.text) <= maximum or len(texts) == 1
        parts[document.language] += texts
    for language in ("id", "th", "km"):
        assert parts[language] == [document.text for document in documents if document.language == language]
        # no two neighbours would fit together
        lengths = [len(document.text) for document in merged if document.language == language]
        first = [document.text.split("\n\n")[0] for document in merged if document.language == language]
        assert all(a + 2 + len(b) > maximum for a, b in zip(lengths, first[1:], strict=False))


@settings(deadline=None)
@given(DOCUMENTS)
def test_fields_of_a_joined_document(documents):
    for document in merge_short(documents, 10_000):
        parts = [part for part in documents if part.language == document.language]
        assert document.source == parts[0].source + (f"+{len(parts) - 1}" if len(parts) > 1 else "")
        qualities = [part.quality for part in parts]
        assert document.quality == (None if None in qualities else min(qualities))


def test_a_single_document_stays_as_it_is():
    document = Document("teks", "id", "a:1", "http://a.id", 0.5)
    assert list(merge_short([document], 100)) == [document]
