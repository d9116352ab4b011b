import collections
import hashlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.text_part import plan_parts, read_part
from seallm_jax.data.text_source import TextSource

LINES = st.lists(st.none() | st.text(max_size=8), max_size=8)  # None is a line without anything


def write(path, lines, end="\n"):
    rendered = ["" if text is None else json.dumps({"text": text}, ensure_ascii=False) for text in lines]
    path.write_text("\n".join(rendered) + (end if rendered else ""), encoding="utf-8")
    return path


@given(st.lists(st.lists(st.tuples(LINES, st.sampled_from(["", "\n"])), max_size=3), min_size=1, max_size=3), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_parts_hold_every_document_once_under_the_number_of_its_line(tmp_path, groups, data):
    files, expected, inputs = {}, collections.defaultdict(list), []
    first = 0
    for language, group in enumerate(groups):
        files[f"l{language}"] = paths = []
        for number, (lines, end) in enumerate(group):
            paths.append(write(tmp_path / f"l{language}-{number:05d}.jsonl", lines, end))
            raw = paths[-1].read_bytes().splitlines()
            expected[language] += [(first + i, lines[i]) for i in range(len(raw)) if lines[i] is not None]
            inputs.append((f"{tmp_path.name}/{paths[-1].name}", len(raw)))
            first += len(raw)
    source = TextSource("text", "x", {code: tuple(paths) for code, paths in files.items()})
    plan = plan_parts(source, part_bytes=data.draw(st.integers(1, 200)))
    found = collections.defaultdict(list)
    for part in plan.parts:
        documents = list(read_part(part))
        assert len(documents) <= part.lines
        for document in documents:
            found[document.language].append((document.document, document.text))
    assert found == {language: texts for language, texts in expected.items() if texts}
    assert list(plan.inputs) == inputs and sum(part.lines for part in plan.parts) == first
    paths = [path for group in files.values() for path in group]
    assert list(plan.digests) == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_languages_advance_together(tmp_path):
    long = write(tmp_path / "aa.jsonl", ["a" * 50] * 300)
    short = write(tmp_path / "bb.jsonl", ["b"] * 100)
    plan = plan_parts(TextSource("text", "low", {"aa": (long,), "bb": (short,)}), part_bytes=5000)
    assert len(plan.parts) > 2
    for part in plan.parts:
        seen = [document.language for document in read_part(part)]
        for place in range(0, len(seen), 20):
            assert abs(seen[:place].count(1) - place / 4) <= 2


def test_a_file_that_goes_or_changes_is_named(tmp_path):
    path = write(tmp_path / "km.jsonl", ["one", "two", "three"])
    plan = plan_parts(TextSource("text", "km", {"km": (path,)}))
    write(path, ["one", "two"])
    with pytest.raises(SeallmError, match="km.jsonl has changed while it was packed"):
        list(read_part(plan.parts[0]))
    path.write_text('{"text": "a"}\n{"te\n{"words": 1}\n')
    with pytest.raises(SeallmError, match="km.jsonl:2: not a valid UTF-8 JSON line"):
        list(read_part(plan.parts[0]))
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"words": 1}\n')
    with pytest.raises(SeallmError, match="record 3 of .*km.jsonl has no text"):
        list(read_part(plan.parts[0]))
    path.unlink()
    for read in (lambda: list(read_part(plan.parts[0])), lambda: plan_parts(TextSource("text", "km", {"km": (path,)}))):
        with pytest.raises(SeallmError, match="km.jsonl does not exist; run the corpus stage again"):
            read()
