"""Frequent lines, against a count of every line."""

import collections
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import FrequentLinesConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus import frequent_lines
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.frequent_lines import FrequentLines, LineCounts, find_frequent_lines

LINES = st.sampled_from(["Beranda", " beranda ", "หน้าแรก", "", "Berita hari ini", "ข่าว", "1", "Hubungi kami", "x y"])
DOCUMENTS = st.builds(
    Document,
    st.lists(LINES, min_size=1, max_size=6).map("\n".join),
    st.sampled_from(["id", "th"]),
    st.just("a.jsonl:1"),
    st.sampled_from(["", "http://a.id/1", "https://www.a.id/2", "http://b.id/1"]),
)


def remove(directory, documents, config, cuts=()):
    bounds = [0, *sorted(cuts), len(documents)]
    paths = []
    for number, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        paths.append(directory / f"{number}.lines")
        with LineCounts(paths[-1], config) as counts:
            for document in documents[start:end]:
                counts.add(document)
    number = find_frequent_lines(paths, directory / "frequent", config)
    lines = FrequentLines(directory / "frequent", config)
    return number, [lines.clean(document) for document in documents]


@given(
    st.lists(DOCUMENTS, max_size=20),
    st.integers(1, 5),
    st.sampled_from(["language", "site"]),
    st.integers(1, 3),
    st.lists(st.integers(0, 20), max_size=3),
    st.sampled_from([1, 3, 100]),
)
@settings(max_examples=60, deadline=None)
def test_lines_of_more_documents_go(tmp_path_factory, documents, maximum, scope, minimum, cuts, at_once):
    config = FrequentLinesConfig(maximum_documents=maximum, scope=scope, minimum_characters=minimum)
    cuts = [min(cut, len(documents)) for cut in cuts]
    with pytest.MonkeyPatch.context() as patch:  # many ranges and batches
        patch.setattr(frequent_lines, "_LINES_AT_ONCE", at_once)
        patch.setattr(frequent_lines, "_PENDING", at_once)
        number, cleaned = remove(tmp_path_factory.mktemp("x"), documents, config, cuts)

    def key(document, line):
        site = document.url.split("/")[2].removeprefix("www.") if document.url and scope == "site" else ""
        return document.language, site, line.strip().lower()

    counts = collections.Counter(k for d in documents for k in {key(d, line) for line in d.text.split("\n")})
    frequent = {k for k, count in counts.items() if count > maximum and len(k[2]) >= minimum}
    assert number == len(frequent)
    for document, result in zip(documents, cleaned, strict=True):
        lines = document.text.split("\n")
        left = [line for line in lines if key(document, line) not in frequent]
        if left == lines:
            assert result is document
        elif not any(line.strip() for line in left):
            assert isinstance(result, Rejected) and result.reason == "only frequent lines"
            assert (result.source, result.num_bytes) == (document.source, document.num_bytes)
        else:
            assert [line for line in result.text.split("\n") if line] == [line for line in left if line]
            assert "\n\n\n" not in result.text and result == dataclasses.replace(document, text=result.text)


def test_other_settings_and_damage_are_one_line(tmp_path):
    config = FrequentLinesConfig(maximum_documents=1)
    remove(tmp_path, [Document("a\nb", "id", "x:1")] * 2, config)
    with pytest.raises(SeallmError, match="written under other settings"):
        FrequentLines(tmp_path / "frequent", dataclasses.replace(config, maximum_documents=2))
    (tmp_path / "0.lines").write_bytes((tmp_path / "0.lines").read_bytes()[:-3])
    with pytest.raises(SeallmError, match=r"0\.lines is damaged"):
        find_frequent_lines([tmp_path / "0.lines"], tmp_path / "frequent", config)
