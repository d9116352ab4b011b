import dataclasses
import shutil

import numpy as np
import pytest

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.loader import TrainLoader, measure_throughput, read_in_order
from seallm_jax.data.reference import ReferenceLogps
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shards import ROWS_FILE, ShardReader, ShardWriter

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


def test_a_start_between_batches_is_allowed(loader):
    tokens = np.concatenate([batch.tokens[:, 0] for batch in loader.batches(3)])
    whole = np.concatenate([batch.tokens[:, 0] for batch in loader.batches()])
    np.testing.assert_array_equal(tokens, whole[3 : 3 + len(tokens)])
    assert len(tokens) == 192


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_the_order_does_not_depend_on_the_number_of_hosts(loader, hosts):
    share = BATCH // hosts
    parts = [list(loader.batches(40, slice(host * share, (host + 1) * share))) for host in range(hosts)]
    for number, whole in enumerate(loader.batches(40)):
        local = [parts[host][number] for host in range(hosts)]
        assert all(part.shape == (share, T) for part in local)
        for name, values in fields(whole).items():
            np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in local]), values)


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
    changed.index = dataclasses.replace(changed.index, digest="other")
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
    path = directories[1] / ROWS_FILE
    data = bytearray(path.read_bytes())
    place = data.index(readers[1][5].to_bytes()) + 40
    data[place] ^= 1
    path.write_bytes(data)
    damaged = [ShardReader(directory) for directory in directories]
    with pytest.raises(SeallmError, match="km/rows.array_record.*pack the source again"):
        list(TrainLoader(compiled(readers), damaged, LANGUAGES, threads=threads).batches())


def test_the_benchmark_counts_tokens(loader):
    speed = measure_throughput(loader, batches=10)
    assert speed["batches"] == 10
    assert speed["tokens_per_second"] == pytest.approx(10 * BATCH * T / speed["seconds"])
