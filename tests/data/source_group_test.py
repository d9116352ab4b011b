import numpy as np
import pytest

from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.source import Source
from seallm_jax.data.source_group import GREY, SHOWN, source_groups


def compiled(sources):
    return Curriculum.compile((StageConfig(tokens=16 * 500),), sources, sequence_length=16, batch_rows=4, seed=0)


@pytest.mark.parametrize("count", [2, SHOWN, SHOWN + 1, 500])
def test_every_source_is_in_one_group_and_the_largest_come_first(count):
    rows = np.random.default_rng(0).permutation(count) + 1
    groups = source_groups(compiled([Source(f"text/l{i}", int(size)) for i, size in enumerate(rows)]))
    assert sorted(np.concatenate([group.indices for group in groups]).tolist()) == list(range(count))
    alone = [group for group in groups if len(group.indices) == 1]
    assert [rows[group.indices[0]] for group in alone] == sorted(rows.tolist(), reverse=True)[: len(alone)]
    assert len(groups) == min(count, SHOWN)
    if count > SHOWN:
        assert groups[-1].label == f"{count - SHOWN + 1} others" and groups[-1].colour == GREY
    colours = [group.colour for group in groups if group.colour != GREY]
    assert len(set(colours)) == len(colours) == min(count, 20)


def test_labels_tell_kinds_where_there_are_several():
    sources = [Source("text/km", 9), Source("text-high/km", 4), Source("instructions/vi", 3), Source("text/none", 0)]
    groups = source_groups(compiled(sources))
    assert [group.label for group in groups] == [
        "Khmer (km) text",
        "Khmer (km) text-high",
        "Vietnamese (vi) instructions",
    ]
    assert len({group.hatch for group in groups}) == 3
    assert [group.label for group in source_groups(compiled(sources[:1]))] == ["Khmer (km)"]
