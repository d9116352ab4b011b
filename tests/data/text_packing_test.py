import collections
import json
import multiprocessing
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import sample_path
from seallm_jax.core.schema import PackingConfig
from seallm_jax.data import text_packing
from seallm_jax.data.row import NO_DOCUMENT
from seallm_jax.data.row_arrays import row_arrays
from seallm_jax.data.shard_index import INDEX_FILE
from seallm_jax.data.shards import ShardReader, open_shards, rows_file
from seallm_jax.data.text_packing import pack_text
from seallm_jax.data.text_source import TextSource

T = 64
MODES = ("intra_document", "open", "anchor")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def sources(tmp_path, sample_texts):
    return [
        TextSource(
            "text",
            code,
            {code: (write_lines(tmp_path / f"{code}.jsonl", [{"text": text} for text in sample_texts[code][:15]]),)},
        )
        for code in ("en", "km")
    ]


def pack(sources, tokenizer, output, *, part_bytes=1 << 28, seed=0, **options):
    packing = PackingConfig(**{"sequence_length": T} | options)
    return pack_text(sources, tokenizer, output, packing, seed=seed, progress=Progress.silent(), part_bytes=part_bytes)


def contents(output):
    """Name -> bytes of all rows, whatever ArrayRecord adds to them."""
    return {
        reader.index.name: [row.to_bytes() for row in reader.read(range(len(reader)))] for reader in open_shards(output)
    }


def pairs_by_document(reader):
    """document -> how often each (input, target) is learned."""
    found = collections.defaultdict(collections.Counter)
    for row in reader.read(range(len(reader))):
        assert row.length <= T
        for piece in row.pieces():
            if piece.document != NO_DOCUMENT:
                assert piece.learned is None or piece.learned.all()
                found[piece.document].update(zip(piece.ids[:-1].tolist(), piece.ids[1:].tolist(), strict=True))
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part_bytes", [1 << 28, 3000])
def test_no_target_of_a_document_is_lost(tokenizer, sources, tmp_path, sample_texts, mode, part_bytes):
    summary = pack(sources, tokenizer, tmp_path / "tokens", mode=mode, part_bytes=part_bytes)
    assert [row["source"] for row in summary] == ["text/en", "text/km"]
    for row, code in zip(summary, ("en", "km"), strict=True):
        reader = ShardReader(tmp_path / "tokens" / "text" / code, tokenizer_digest=tokenizer.digest)
        reader.verify()
        assert (row["documents"], row["rows"], row["truncated"]) == (15, len(reader), 0)
        assert (len(reader.index.parts) > 1) == (part_bytes == 3000) and reader.index.mode == mode
        found = pairs_by_document(reader)
        for document, text in enumerate(sample_texts[code][:15]):
            ids = tokenizer.encode(text, bos=True, eos=True)
            assert found[document] == collections.Counter(zip(ids[:-1], ids[1:], strict=True))
            assert reader.index.place(document) == (f"{tmp_path.name}/{code}.jsonl", document + 1)
        assert len(found) == 15


def test_the_modes_differ_in_what_documents_see_and_where_they_begin(tokenizer, sources, tmp_path):
    batches = {}
    for mode in MODES:
        pack(sources[:1], tokenizer, tmp_path / mode, mode=mode)
        reader = ShardReader(tmp_path / mode / "text" / "en")
        rows = reader.read(range(len(reader)))
        batches[mode] = row_arrays(rows, T, [np.zeros(1, np.int32)] * len(rows), [mode] * len(rows))
    intra, opened, anchored = (batches[mode] for mode in MODES)
    for name in ("tokens", "targets", "loss_weights", "language_ids"):
        np.testing.assert_array_equal(intra[name], opened[name])
    assert intra["segment_ids"].max() > 1 == opened["segment_ids"].max()
    used = opened["segment_ids"] > 0
    np.testing.assert_array_equal(opened["positions"], np.where(used, np.arange(T), 0))
    assert (anchored["tokens"][:, 0] == tokenizer.begin_id).all() and (anchored["loss_weights"][:, 0] == 0).all()
    assert (anchored["segment_ids"][:, 0] == 1).all() and (anchored["segment_ids"][:, 1:] != 1).all()
    np.testing.assert_array_equal(anchored["positions"], np.where(anchored["segment_ids"] > 0, np.arange(T), 0))
    assert anchored["loss_weights"].sum() == intra["loss_weights"].sum()


@pytest.mark.parametrize("mode", MODES)
def test_rows_are_full_or_as_few_as_there_can_be(tokenizer, tmp_path, mode):
    paths = {code: sample_path("corpus") / f"{code}.jsonl" for code in ("id", "km", "th")}
    sources = [TextSource("text", code, {code: (path,)}) for code, path in paths.items()]
    sources.append(TextSource("text", "all", {code: (path,) for code, path in paths.items()}))
    for row in pack(sources, tokenizer, tmp_path, mode=mode, sequence_length=256):
        learned = 256 - (mode == "anchor")
        assert row["fill"] >= 0.995 or row["rows"] == -(-row["tokens"] // learned)


def test_rows_of_a_group_mix_its_languages(tokenizer, sources, tmp_path):
    files = {code: source.files[code] for source in sources for code in source.files}
    pack([TextSource("text", "both", files)], tokenizer, tmp_path / "tokens")
    reader = ShardReader(tmp_path / "tokens" / "text" / "both")
    assert reader.index.languages == ("en", "km")
    languages = collections.defaultdict(set)
    together = 0
    for row in reader.read(range(len(reader))):
        together += len({piece.language for piece in row.pieces()}) > 1
        for piece in row.pieces():
            languages[piece.document].add(piece.language)
    assert languages == {document: {document // 15} for document in range(30)} and together
    assert reader.index.place(16) == (f"{tmp_path.name}/km.jsonl", 2)


def test_documents_go_to_the_band_of_their_quality(tokenizer, tmp_path):
    qualities = [0.9, None, 0.2, 0.95, 0.5]
    lines = [{"text": f"document {i}"} | ({} if q is None else {"quality": q}) for i, q in enumerate(qualities)]
    files = {"en": (write_lines(tmp_path / "en.jsonl", lines),)}
    bands = [TextSource("text-high", "en", files, 0.8), TextSource("text", "en", files, below_quality=0.8)]
    pack(bands, tokenizer, tmp_path / "tokens")
    found = {reader.index.name: set(pairs_by_document(reader)) for reader in open_shards(tmp_path / "tokens")}
    assert found == {"text-high/en": {0, 3}, "text/en": {1, 2, 4}}
    pack([TextSource("text", "en", files)], tokenizer, tmp_path / "tokens")
    assert [reader.index.name for reader in open_shards(tmp_path / "tokens")] == ["text/en"]


def test_finished_shards_are_left_alone_and_changed_ones_made_again(tokenizer, sources, tmp_path):
    output = tmp_path / "tokens"
    first = pack(sources, tokenizer, output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob(INDEX_FILE)}
    assert pack(sources, tokenizer, output) == first
    assert times == {path: path.stat().st_mtime_ns for path in output.rglob(INDEX_FILE)}
    write_lines(tmp_path / "km.jsonl", [{"text": "another text, only one"}])
    second = pack(sources, tokenizer, output)
    assert second[0] == first[0] and second[1]["documents"] == 1
    changed = {path.parent.name for path in times if times[path] != path.stat().st_mtime_ns}
    assert changed == {"km"}
    pack(sources[:1], tokenizer, output)
    assert [reader.index.name for reader in open_shards(output)] == ["text/en"]


def test_shards_of_an_earlier_format_are_made_again(tokenizer, sources, tmp_path):
    expected = pack(sources, tokenizer, tmp_path / "tokens")
    path = tmp_path / "tokens" / "text" / "km" / INDEX_FILE
    path.write_text(json.dumps({"version": 1}))
    assert pack(sources, tokenizer, tmp_path / "tokens") == expected
    assert len(open_shards(tmp_path / "tokens")) == 2


def test_shards_of_another_tokenizer_are_refused(tokenizer, sources, tmp_path):
    pack(sources, tokenizer, tmp_path / "tokens")
    with pytest.raises(SeallmError, match="was made with tokenizer"):
        open_shards(tmp_path / "tokens", tokenizer_digest="0" * 64)


def test_dropout_is_part_of_what_a_shard_was_made_from(tokenizer, sources, tmp_path):
    def tokens(**options):
        return sum(row["tokens"] for row in pack(sources, tokenizer, tmp_path / "tokens", **options))

    plain = tokens()
    assert tokens(seed=3) == plain  # a seed without dropout changes nothing
    dropped = tokens(bpe_dropout=0.2)
    assert dropped > 1.05 * plain
    assert tokens(bpe_dropout=0.2, seed=1) != dropped
    assert tokens() == plain


def test_a_killed_process_is_named_and_the_rows_do_not_depend_on_how_many_there_are(tokenizer, sources, tmp_path):
    expected = pack(sources, tokenizer, tmp_path / "alone", part_bytes=3000, workers=1)

    def kill():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        os.kill(children[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SeallmError, match="was killed.*lower config.packing.workers and give the same command again"):
        pack(sources, tokenizer, tmp_path / "many", part_bytes=3000, workers=2)
    killer.join()
    assert not list((tmp_path / "many").rglob(INDEX_FILE))
    assert pack(sources, tokenizer, tmp_path / "many", part_bytes=3000, workers=2) == expected
    assert contents(tmp_path / "many") == contents(tmp_path / "alone")
    digests = [{r.index.name: r.index.digest for r in open_shards(tmp_path / name)} for name in ("many", "alone")]
    assert digests[0] == digests[1]


def test_a_rerun_keeps_the_parts_that_are_finished(tokenizer, sources, tmp_path, monkeypatch):
    output = tmp_path / "tokens"
    write = text_packing.write_json
    written = []

    def fail_at_the_third(path, value):
        if len(written) == 2:
            raise KeyboardInterrupt
        write(path, value)
        written.append(path)

    monkeypatch.setattr(text_packing, "write_json", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack(sources, tokenizer, output, part_bytes=3000)
    kept = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.setattr(text_packing, "write_json", lambda path, value: (written.append(path), write(path, value)))
    summary = pack(sources, tokenizer, output, part_bytes=3000)
    assert len(written) == len(set(written)) > 3 and not any(path.exists() for path in kept)
    assert summary == pack(sources, tokenizer, tmp_path / "again", part_bytes=3000)
    assert contents(output) == contents(tmp_path / "again")


def test_a_full_disk_is_named_and_a_rerun_continues(tokenizer, sources, tmp_path):
    output = tmp_path / "tokens"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(SeallmError, match=r"cannot write .*rows-00000.array_record: .*give the same command again"):
            pack(sources, tokenizer, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(output.rglob(INDEX_FILE))
    assert pack(sources, tokenizer, output) == pack(sources, tokenizer, tmp_path / "again")


def test_a_file_that_disappears_is_named_and_a_rerun_continues(tokenizer, sources, tmp_path, monkeypatch):
    path = tmp_path / "km.jsonl"
    plan, data = text_packing.plan_parts, path.read_bytes()

    def plan_and_lose(source, **options):
        found = plan(source, **options)
        if source.name == "km":
            path.unlink()
        return found

    monkeypatch.setattr(text_packing, "plan_parts", plan_and_lose)
    with pytest.raises(SeallmError, match="km.jsonl does not exist"):
        pack(sources[::-1], tokenizer, tmp_path / "tokens")
    monkeypatch.undo()
    path.write_bytes(data)
    assert pack(sources, tokenizer, tmp_path / "tokens")[1]["documents"] == 15
    assert not rows_file(tmp_path / "tokens" / "text" / "km", 1).exists()
