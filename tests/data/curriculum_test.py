import dataclasses
import hashlib

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import StageConfig
from seallm_jax.data import source_order
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.source import Source

T = 16
SOURCES = (Source("text/en", 700), Source("text/km", 90), Source("text/lo", 7), Source("instructions/vi", 30))
STAGES = (
    StageConfig(name="first", tokens=T * 3000, mixture="temperature", alpha=0.3),
    StageConfig(
        name="second",
        tokens=T * 6003,
        mixture="explicit",
        weights={"text/km": 0.7, "instructions/*": 0.2999, "text/lo": 0.0001},
        transition="cosine",
        transition_tokens=T * 1000,
    ),
)


def compiled(**changes):
    values = {"sequence_length": T, "batch_rows": 8, "seed": 3} | changes
    stages, sources = values.pop("stages", STAGES), values.pop("sources", SOURCES)
    return Curriculum.compile(stages, sources, **values)


@pytest.fixture(scope="module")
def curriculum():
    blocks, source_order.BLOCK_ROWS = source_order.BLOCK_ROWS, 4096
    yield compiled()
    source_order.BLOCK_ROWS = blocks


def test_totals(curriculum):
    assert curriculum.total_rows == 9000  # 9003 rows, rounded down to batches of 8
    assert curriculum.total_steps == 1125
    assert curriculum.total_tokens == 9000 * T
    assert [(stage.name, stage.start, stage.stop) for stage in curriculum.stages] == [
        ("first", 0, 3000),
        ("second", 3000, 9000),
    ]
    assert curriculum.stage_at(3000).name == "second"


def test_any_part_of_the_assignment_is_that_part_of_the_whole(curriculum):
    sources, rows = curriculum.assign(0, curriculum.total_rows)
    rng = np.random.default_rng(0)
    for start in [0, 1, 4095, 4096, 8192, *rng.integers(0, 8900, 20).tolist()]:
        count = min(100, curriculum.total_rows - start)
        part_sources, part_rows = curriculum.assign(start, count)
        np.testing.assert_array_equal(part_sources, sources[start : start + count])
        np.testing.assert_array_equal(part_rows, rows[start : start + count])
    assert curriculum.assign(9000, 0)[0].shape == (0,)


def test_each_source_reads_every_row_once_an_epoch(curriculum):
    sources, rows = curriculum.assign(0, curriculum.total_rows)
    for index, source in enumerate(SOURCES):
        mine = rows[sources == index]
        for start in range(0, len(mine) - source.rows + 1, source.rows):
            np.testing.assert_array_equal(np.sort(mine[start : start + source.rows]), np.arange(source.rows))
        assert len(mine) == curriculum.served(curriculum.total_rows)[index]


def test_served_counts_and_quotas(curriculum):
    for prefix in (0, 1, 2999, 4096, 4097, 9000):
        served = curriculum.served(prefix)
        np.testing.assert_array_equal(served, np.bincount(curriculum.order.read(0, prefix), minlength=4))
        quota = curriculum.schedule.quotas(prefix) / curriculum.schedule.scale
        assert (np.abs(served - quota) < 1).all()
    assert curriculum.weights_at(5).sum() == curriculum.schedule.scale
    assert curriculum.shares_at(8999).tolist() == pytest.approx([0, 0.7, 0.0001, 0.2999])


def test_stages_may_have_batches_of_their_own():
    stages = (STAGES[0], dataclasses.replace(STAGES[1], batch_rows=32))
    curriculum = compiled(stages=stages)
    assert curriculum.batches.spans == ((375, 8), (187, 32))
    assert curriculum.total_steps == 562 and curriculum.total_rows == 375 * 8 + 187 * 32
    assert curriculum.digest != compiled().digest


def test_rows_outside_are_index_errors(curriculum):
    for start, count in ((-1, 1), (8999, 2), (0, -1)):
        with pytest.raises(IndexError):
            curriculum.assign(start, count)
    with pytest.raises(IndexError):
        curriculum.served(9001)


def test_the_order_is_the_same_in_every_release():
    """A run that was begun with an older version must go on with the rows that it would have seen."""
    sources, rows = compiled().assign(0, 9000)
    digest = hashlib.sha256(sources.astype("<i4").tobytes() + rows.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "69da0b3a1e046935"


def test_digest_covers_what_decides_the_order(curriculum):
    same = compiled()
    assert same.digest == curriculum.digest
    others = [
        compiled(seed=4),
        compiled(batch_rows=4),
        compiled(stages=(STAGES[0], dataclasses.replace(STAGES[1], weights={"text/km": 1.0}))),
        compiled(sources=(*SOURCES[:3], dataclasses.replace(SOURCES[3], digest="other rows"))),
    ]
    assert len({curriculum.digest, *(other.digest for other in others)}) == 5


def test_saved_schedules_are_found_by_digest_and_not_computed_again(curriculum, tmp_path, monkeypatch):
    first = compiled(directory=tmp_path)
    loaded = Curriculum.load(tmp_path, first.digest)
    assert loaded.digest == curriculum.digest
    assert loaded.stages == curriculum.stages and loaded.sources == curriculum.sources
    np.testing.assert_array_equal(loaded.order.read(0, 9000), curriculum.order.read(0, 9000))

    def fail(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(source_order, "assign_rows", fail)
    again = compiled(directory=tmp_path)
    np.testing.assert_array_equal(again.assign(4000, 50)[1], curriculum.assign(4000, 50)[1])


@pytest.mark.parametrize("damage", ["cut", "flip", "json", "missing"])
def test_damaged_schedules_are_refused(curriculum, tmp_path, damage):
    compiled(directory=tmp_path)
    folder = next(tmp_path.glob("schedule-*"))
    data = (folder / "order.npy").read_bytes()
    if damage == "cut":
        (folder / "order.npy").write_bytes(data[:-100])
    elif damage == "flip":
        (folder / "order.npy").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "json":
        (folder / "schedule.json").write_text('{"sources": []}')
    else:
        (folder / "weights.npy").unlink()
    with pytest.raises(SeallmError, match="schedule-.*(damaged|digest).*delete it") as error:
        Curriculum.load(tmp_path, curriculum.digest).assign(8990, 10)
    assert "\n" not in str(error.value)


def test_table_tells_tokens_share_epochs_and_notes():
    stage = StageConfig(name="only", tokens=T * 400, mixture="explicit", weights={"text/*": 0.5, "text/lo": 0.5})
    table = compiled(stages=(stage,)).table()
    assert [record["source"] for record in table] == ["text/en", "text/km", "text/lo"]
    lao = table[2]
    assert (lao["stage"], lao["kind"], lao["language"]) == ("only", "text", "lo")
    assert lao["rows"] == 200 and lao["tokens"] == 200 * T and lao["share"] == 0.5
    assert lao["epochs"] == lao["epochs_total"] == pytest.approx(200 / 7)
    assert "read more than 4 times by the end, which gains little: text/lo 28.6 times." in table[0]["notes"]
    assert sum(record["tokens"] for record in table) == 400 * T


def test_names_must_differ():
    with pytest.raises(SeallmError, match="names repeat: text/en"):
        compiled(sources=(SOURCES[0], SOURCES[0]))
