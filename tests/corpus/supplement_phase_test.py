"""Parallel text and joined documents: nothing twice, nothing lost, the same for any division into tasks."""

import collections
import dataclasses
import json

import pytest

from seallm_jax.core.corpus_config import (
    CodeSwitchingConfig,
    CorpusConfig,
    DuplicatesConfig,
    ExecutionConfig,
    FilterConfig,
    FrequentLinesConfig,
    ParallelConfig,
)
from seallm_jax.core.corpus_files import corpus_languages, corpus_texts
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.pipeline import build_corpus
from tests.corpus.conftest import WORDS


def lines_of(directory) -> collections.Counter:
    files = directory.glob("*.jsonl")
    return collections.Counter(line for path in files for line in path.read_text().splitlines())


@pytest.fixture
def aligned(tmp_path):
    path = tmp_path / "aligned.jsonl"
    records = [
        {"en": f"The market of village {n} opens early in the morning.", "id": f"Pasar desa {n} buka sejak pagi hari."}
        for n in range(20)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def build(source, aligned, output, tasks, **options):
    config = CorpusConfig(
        path=str(source),
        filters=FilterConfig(enabled=False),
        parallel=ParallelConfig(paths=(str(aligned),)),
        code_switching=CodeSwitchingConfig(fraction=0.4, maximum_characters=1000),
        execution=ExecutionConfig(tasks=tasks, workers=1),
        **options,
    )
    return build_corpus(config, output, seed=0, progress=Progress.silent(), evaluation=[aligned])


def test_supplements_do_not_depend_on_tasks(messy_corpus, aligned, tmp_path):
    report = build(messy_corpus, aligned, tmp_path / "one", 1)
    other = build(messy_corpus, aligned, tmp_path / "three", 3)
    assert report.to_json() == other.to_json()
    for kind in ("train", "heldout", "parallel", "code_switched"):
        found = lines_of(tmp_path / "one" / kind)
        assert found and found == lines_of(tmp_path / "three" / kind)
    assert corpus_languages(tmp_path / "one" / "parallel") == ["id"]
    texts = list(corpus_texts(tmp_path / "one" / "parallel", "id"))
    counts = report.counts["id"]
    # aligned text that the config asks to train on is no contamination
    assert counts.parallel_documents == len(texts) >= 15
    assert all("Pasar desa" in text and "The market" in text for text in texts)


def test_parallel_text_of_the_evaluation_is_dropped(messy_corpus, aligned, tmp_path):
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text(json.dumps({"question": "Pasar desa 7 buka sejak pagi hari."}))
    config = CorpusConfig(path=str(messy_corpus), parallel=ParallelConfig(paths=(str(aligned),)))
    config = dataclasses.replace(config, filters=FilterConfig(enabled=False))
    report = build_corpus(config, tmp_path / "out", seed=0, progress=Progress.silent(), evaluation=[quiz])
    assert report.counts["id"].dropped["contaminated"] == 1
    texts = list(corpus_texts(tmp_path / "out" / "parallel", "id"))
    assert len(texts) == report.counts["id"].parallel_documents and not any("desa 7 " in text for text in texts)
    dropped = [line for path in (tmp_path / "out").glob("dropped*") for line in path.read_text().splitlines()]
    (found,) = [json.loads(line) for line in dropped if "contaminated" in line]
    assert found["source"].startswith("aligned.jsonl:8#") and found["detail"] == "quiz.jsonl:1"


def test_joined_documents_hold_every_text_once(messy_corpus, aligned, tmp_path):
    build(messy_corpus, aligned, tmp_path / "joined", 2)
    plain = CorpusConfig(path=str(messy_corpus), filters=FilterConfig(enabled=False))
    build_corpus(plain, tmp_path / "plain", seed=0, progress=Progress.silent())

    def texts(directory, kind):
        found = corpus_languages(directory / kind)
        return [(text, code) for code in found for text in corpus_texts(directory / kind, code)]

    language_of = dict(texts(tmp_path / "plain", "train"))
    joined = [text.split("\n\n") for text, _ in texts(tmp_path / "joined", "code_switched")]
    alone = [text for text, _ in texts(tmp_path / "joined", "train")]
    assert sorted([*alone, *(part for parts in joined for part in parts)]) == sorted(language_of)
    assert joined and all(len({language_of[part] for part in parts}) > 1 for parts in joined)


def test_frequent_lines_go_before_duplicates_are_sought(tmp_path):
    menu = "Beranda | Tentang kami | Hubungi kami"
    bodies = [f"{word} adalah kata yang dibicarakan orang di desa sejak kemarin sore" for word in WORDS["id"].split()]
    lines = [{"text": f"{menu}\n{body}", "lang": "id"} for body in bodies]
    lines.append({"text": bodies[0], "lang": "id"})  # a duplicate once the menu is gone
    lines.append({"text": menu, "lang": "id"})
    for part in range(2):
        records = "\n".join(map(json.dumps, lines[part::2]))
        (tmp_path / f"{part}.jsonl").write_text(records)
    config = CorpusConfig(
        path=str(tmp_path),
        filters=FilterConfig(enabled=False),
        duplicates=DuplicatesConfig(near=False),
        frequent_lines=FrequentLinesConfig(maximum_documents=5),
        execution=ExecutionConfig(tasks=2, workers=1),
    )
    report = build_corpus(config, tmp_path / "out", seed=0, progress=Progress.silent())
    kept = list(corpus_texts(tmp_path / "out" / "train", "id")) + list(corpus_texts(tmp_path / "out" / "heldout", "id"))
    assert sorted(kept) == sorted(bodies)
    assert report.counts["id"].dropped.total() == 2 and report.counts["id"].dropped["exact duplicate"] == 1
