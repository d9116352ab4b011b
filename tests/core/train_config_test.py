import pytest

from seallm_jax.core.schema import StageConfig, TrainConfig

STAGES = (StageConfig(tokens=9, batch_rows=24), StageConfig(tokens=9), StageConfig(tokens=9, batch_rows=16))


def test_the_largest_batch_keeps_the_micro_batch():
    train = TrainConfig(batch_rows=8, accumulation=2, curriculum=STAGES)
    largest = train.with_largest_batch()
    assert (largest.batch_rows, largest.accumulation, largest.micro_batch_rows) == (24, 6, 4)
    assert [stage.batch_rows for stage in largest.curriculum] == [0, 0, 0]
    assert TrainConfig(batch_rows=8).with_largest_batch() == TrainConfig(batch_rows=8)


def test_a_stages_batch_is_whole_micro_batches():
    with pytest.raises(ValueError, match=r"'main': batch_rows.*24.*multiple of the micro-batch of 16 rows"):
        TrainConfig(batch_rows=16, curriculum=STAGES)
