import dataclasses
import itertools
import shutil

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.loader import TrainLoader, read_in_order, usual_document_length
from seallm_jax.data.reference import ReferenceLogps
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shard_index import ShardIndex, ShardPart
from seallm_jax.data.shards import ShardReader, ShardWriter, rows_file

T = 24
LANGUAGES = Languages(("en", "km", "lo"))
BATCH = 8


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Shards in which row i of source s holds document i and ids that tell both."""
    root = tmp_path_factory.mktemp("tokens")
    made = []
    for number, (language, rows) in enumerate((("en", 40), ("km", 11), ("lo", 3))):
        directory = root / "text" / language
        with ShardWriter(directory) as writer:
            for row in range(rows):
                pieces = [Piece(np.full(9, 1000 * number + row, np.int32), document=row)] * 2
                writer.write(PackedRow.of(pieces))
            writer.finish(
                kind="text",
                language=language,
                languages=(language,),
                sequence_length=T,
                tokenizer_digest="t",
                inputs_digest="i",
                documents=rows,
            )
        made.append(ShardReader(directory))
    return made


def compiled(readers, rows=200):
    stages = (
        StageConfig(name="a", tokens=rows // 2 * T, mixture="temperature", alpha=0.5),
        StageConfig(name="b", tokens=rows // 2 * T, mixture="unimax", transition="linear", transition_tokens=20 * T),
    )
    sources = [reader.source() for reader in readers]
    return Curriculum.compile(stages, sources, sequence_length=T, batch_rows=BATCH, seed=1)


@pytest.fixture(scope="module")
def loader(readers):
    return TrainLoader(compiled(readers), readers, LANGUAGES)


def fields(batch):
    return {name: value for name, value in vars(batch).items() if value is not None}


def assert_same(one, other):
    assert fields(one).keys() == fields(other).keys()
    for name, values in fields(one).items():
        np.testing.assert_array_equal(values, getattr(other, name), err_msg=name)


def test_batches_hold_the_rows_that_the_curriculum_assigns(loader):
    batches = list(loader.batches())
    assert len(batches) == loader.curriculum.total_steps == 25
    sources, rows = loader.curriculum.assign(0, loader.total_rows)
    tokens = np.concatenate([batch.tokens[:, 0] for batch in batches])
    np.testing.assert_array_equal(tokens, 1000 * sources + rows)
    languages = np.concatenate([batch.language_ids[:, 0] for batch in batches])
    np.testing.assert_array_equal(languages, sources)
    first = batches[0]
    assert isinstance(first, Batch) and first.shape == (BATCH, T) and first.reference_logps is None
    np.testing.assert_array_equal(first.segment_ids[0], [1] * 8 + [2] * 8 + [0] * 8)
    np.testing.assert_array_equal(first.positions[0], [*range(8), *range(8), *[0] * 8])
    np.testing.assert_array_equal(first.loss_weights[0], [1.0] * 16 + [0.0] * 8)


@pytest.mark.parametrize("start", [8, 80, 104, 192, 200])
def test_resuming_at_a_row_gives_what_an_uninterrupted_run_sees_from_there(loader, start):
    rest = list(loader.batches())[start // BATCH :]
    resumed = list(loader.batches(start))
    assert len(rest) == len(resumed)
    for one, other in zip(rest, resumed, strict=True):
        assert_same(one, other)


def growing(readers):
    """Batches of 8, then of 16, then of 4."""
    stages = [StageConfig(name=str(size), tokens=44 * T, batch_rows=size) for size in (0, 16, 4)]
    sources = [reader.source() for reader in readers]
    return Curriculum.compile(stages, sources, sequence_length=T, batch_rows=BATCH, seed=1)


def test_each_stage_has_batches_of_its_own(readers):
    loader = TrainLoader(growing(readers), readers, LANGUAGES)
    whole = list(loader.batches())
    assert [batch.shape[0] for batch in whole] == [8] * 6 + [16] * 3 + [4] * 9
    sources, rows = loader.curriculum.assign(0, loader.total_rows)
    tokens = np.concatenate([batch.tokens[:, 0] for batch in whole])
    np.testing.assert_array_equal(tokens, 1000 * sources + rows)
    for step in (0, 5, 6, 8, 9, 17, 18):
        parts = [
            list(loader.batches(loader.plan.rows_before(step), slice(2 * host, 2 * host + 2))) for host in range(4)
        ]
        for number, batch in enumerate(whole[step:]):
            local = [parts[host][number] for host in range(4)]
            assert {part.shape[0] for part in local} == {batch.shape[0] // 4}
            for name, values in fields(batch).items():
                np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in local]), values)
    with pytest.raises(ValueError, match="no step begins at row 52"):
        next(loader.batches(52))
    with pytest.raises(ValueError, match="rows slice.1, 8, None. of batches of 8"):
        next(loader.batches(0, slice(1, 8)))  # half a row of a batch of four


SIZES = st.lists(st.tuples(st.integers(24, 70), st.sampled_from([0, 8, 16, 24])), min_size=1, max_size=3)
HOSTS = st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(0, 4)), min_size=1, max_size=5)


@hypothesis.given(SIZES, HOSTS)
@hypothesis.settings(max_examples=40, deadline=None)
def test_the_order_does_not_depend_on_the_number_of_hosts_nor_on_its_changes(readers, sizes, hosts):
    """A run that stops and goes on with another number of hosts sees what one host sees in one go."""
    stages = tuple(
        StageConfig(name=f"s{i}", tokens=rows * T, mixture="temperature", alpha=0.5, batch_rows=size)
        for i, (rows, size) in enumerate(sizes)
    )
    named = [reader.source() for reader in readers]
    curriculum = Curriculum.compile(stages, named, sequence_length=T, batch_rows=BATCH, seed=3)
    loader, plan = TrainLoader(curriculum, readers, LANGUAGES, threads=0), curriculum.batches
    sources, rows = curriculum.assign(0, plan.total_rows)
    step = 0
    for number, (count, steps) in enumerate(hosts):
        steps = steps if number < len(hosts) - 1 else plan.total_steps  # the last ones finish
        share = BATCH // count
        parts = [
            itertools.islice(loader.batches(plan.rows_before(step), slice(host * share, (host + 1) * share)), steps)
            for host in range(count)
        ]
        for local in zip(*parts, strict=True):
            first, size = plan.rows_before(step), plan.size_at(step)
            assert all(part.shape == (size // count, T) for part in local)
            tokens = np.concatenate([part.tokens[:, 0] for part in local])
            np.testing.assert_array_equal(tokens, (1000 * sources + rows)[first : first + size])
            whole = loader.read(first, size)
            for name, values in fields(whole).items():
                np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in local]), values)
            step += 1
    assert step == plan.total_steps


@pytest.mark.parametrize("threads", [0, 1, 7])
def test_the_order_does_not_depend_on_the_number_of_threads(loader, readers, threads):
    other = TrainLoader(loader.curriculum, readers[::-1], LANGUAGES, threads=threads, prefetch=max(threads, 1))
    for one, another in zip(loader.batches(), other.batches(), strict=True):
        assert_same(one, another)


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 8, 2), slice(5, 3)])
def test_impossible_slices_are_refused(loader, rows):
    with pytest.raises(ValueError):
        next(loader.batches(0, rows))
    with pytest.raises(ValueError):
        next(loader.batches(201))


def test_a_missing_or_changed_shard_is_refused(loader, readers):
    with pytest.raises(SeallmError, match="no shard for source text/lo"):
        TrainLoader(loader.curriculum, readers[:2], LANGUAGES)
    changed = ShardReader(readers[2].directory)
    changed.index = dataclasses.replace(changed.index, mode="open")
    with pytest.raises(SeallmError, match="text/lo has changed since the curriculum was compiled"):
        TrainLoader(loader.curriculum, [*readers[:2], changed], LANGUAGES)
    longer = Curriculum.compile(
        (StageConfig(tokens=20 * 2 * T),), [r.source() for r in readers], sequence_length=2 * T, batch_rows=4, seed=0
    )
    with pytest.raises(SeallmError, match="rows of 24 tokens, not 48"):
        TrainLoader(longer, readers, LANGUAGES)
    with pytest.raises(SeallmError, match="language 'lo' is not one of this run's"):
        TrainLoader(loader.curriculum, readers, Languages(("en", "km")))


def test_reference_log_probabilities_follow_their_rows(loader, readers, tmp_path):
    references = {}
    for number, reader in enumerate(readers):
        reference = ReferenceLogps.create(tmp_path / reader.index.language, "d", len(reader), 2)
        reference.values[:, 0] = 1000 * number + np.arange(len(reader))
        reference.values[:, 1] = -1
        reference.save()
        references[reader.index.name] = ReferenceLogps.open(tmp_path / reader.index.language, "d")
    with_references = TrainLoader(loader.curriculum, readers, LANGUAGES, references=references)
    assert with_references.reference_columns == 2 and loader.reference_columns == 0
    for batch in with_references.batches(16):
        np.testing.assert_array_equal(batch.reference_logps[:, 0], batch.tokens[:, 0])
        assert (batch.reference_logps[:, 1] == -1).all() and batch.reference_logps.dtype == np.float32
    with pytest.raises(SeallmError, match="text/lo has no reference"):
        TrainLoader(loader.curriculum, readers, LANGUAGES, references=dict(list(references.items())[:2]))
    wrong = references | {"text/lo": references["text/km"]}
    with pytest.raises(SeallmError, match=r"shape \(11, 2\)"):
        TrainLoader(loader.curriculum, readers, LANGUAGES, references=wrong)


def test_reading_a_shard_in_order_fills_the_last_batch_with_empty_rows(readers):
    parts = list(read_in_order(readers[1], LANGUAGES, 4))
    assert [part for part, _ in parts] == [slice(0, 4), slice(4, 8), slice(8, 11)]
    last = parts[-1][1]
    assert last.tokens[:, 0].tolist() == [1008, 1009, 1010, 0]
    assert last.segment_ids[3].sum() == 0 and last.loss_weights[3].sum() == 0


@pytest.mark.parametrize("threads", [0, 2])
def test_a_damaged_row_stops_the_run_with_its_file_named(readers, tmp_path, threads):
    directories = [tmp_path / reader.index.language for reader in readers]
    for reader, directory in zip(readers, directories, strict=True):
        shutil.copytree(reader.directory, directory)
    path = rows_file(directories[1])
    data = bytearray(path.read_bytes())
    place = data.index(readers[1][5].to_bytes()) + 40
    data[place] ^= 1
    path.write_bytes(data)
    damaged = [ShardReader(directory) for directory in directories]
    with pytest.raises(SeallmError, match="km/rows-00000.array_record, row 5: .*pack the source again"):
        list(TrainLoader(compiled(readers), damaged, LANGUAGES, threads=threads).batches())


def index_of(rows, length, *, recorded=True, mode="intra_document"):
    """A shard of rows that are filled with segments of given lengths."""
    positions, squares = sum(map(sum, rows)), sum(n * n for row in rows for n in row)
    part = ShardPart(len(rows), 1, positions, positions, squares if recorded else 0, 0, 1, "")
    return ShardIndex(
        "text", "en", ("en",), sequence_length=length, tokenizer_digest="", inputs_digest="", parts=(part,), mode=mode
    )


ROWS = st.lists(st.lists(st.integers(1, 32), min_size=1, max_size=4), min_size=1, max_size=4)


@hypothesis.given(st.lists(st.tuples(ROWS, st.integers(0, 3)), min_size=1, max_size=4))
def test_the_usual_length_is_that_of_the_document_of_a_position_served(sources):
    """Against the plain mean over all positions, each source being served a whole number of times."""
    lengths = [n for rows, epochs in sources for _ in range(epochs) for row in rows for n in row]
    found = usual_document_length(
        [index_of(rows, 128) for rows, _ in sources], [epochs * len(rows) for rows, epochs in sources], 128
    )
    if not lengths:
        assert found == 0
        return
    mean = np.sum(np.square(lengths)) / np.sum(lengths)
    assert found.bit_count() == 1 and 2**-0.501 <= found / mean <= 2**0.501


def test_sources_that_do_not_know_their_lengths_are_left_out(loader):
    known, unknown = index_of([[16, 16]], 32), index_of([[32]], 32, recorded=False)
    assert usual_document_length([known, unknown], [1, 99], 32) == 16
    assert usual_document_length([unknown], [1], 32) == 0
    assert usual_document_length([index_of([[24]], 24)], [1], 24) == 24  # 32 is longer than a row
    assert usual_document_length([index_of([[8, 8, 16]], 32, mode="open")], [1], 32) == 32  # the row is the document
    assert loader.document_length == 8
