"""Names of the corpus stage's files, and reading them in order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.corpus_files import corpus_files, corpus_languages, corpus_texts, part_name
from seallm_jax.core.errors import SeallmError


def test_parts_are_read_in_their_order(tmp_path):
    for part in (10, 2, 0):
        (tmp_path / part_name("km", part)).write_text(json.dumps({"text": f"part {part}", "lang": "km"}) + "\n")
    (tmp_path / part_name("lo")).write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "notes.md").write_text("no documents")
    assert list(corpus_texts(tmp_path, "km")) == ["part 0", "part 2", "part 10"]
    assert list(corpus_texts(tmp_path, "lo")) == ["one", "two"]
    assert corpus_languages(tmp_path) == ["km", "lo"]


def test_no_file_is_an_error_and_no_directory_is_no_language(tmp_path):
    with pytest.raises(SeallmError, match="has no file km.jsonl"):
        corpus_files(tmp_path, "km")
    assert corpus_languages(tmp_path / "none") == []


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{2,3}(-[A-Z][a-z]{3})?", fullmatch=True),
        st.one_of(st.none(), st.sets(st.integers(0, 99999), min_size=1, max_size=3)),
        max_size=4,
    )
)
def test_every_name_is_found_again(tmp_path_factory, parts_of):
    directory = tmp_path_factory.mktemp("names")
    for language, parts in parts_of.items():
        for part in [None] if parts is None else parts:
            (directory / part_name(language, part)).touch()
    assert corpus_languages(directory) == sorted(parts_of)
    for language, parts in parts_of.items():
        names = [part_name(language, part) for part in ([None] if parts is None else sorted(parts))]
        assert [path.name for path in corpus_files(directory, language)] == names
