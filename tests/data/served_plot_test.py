import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.served_plot import WINDOWS, plot_served, windows
from seallm_jax.data.served_record import ServedRecord
from seallm_jax.data.source import Source


def run_so_far(sources, rows, every):
    stages = (StageConfig(name="first", tokens=16 * 600), StageConfig(name="second", tokens=16 * 600, mixture="unimax"))
    curriculum = Curriculum.compile(stages, sources, sequence_length=16, batch_rows=4, seed=0)
    names = [source.name for source in sources]
    lines = []
    for row in range(every, rows + 1, every):
        served = dict(zip(names, (curriculum.served(row) / row).tolist(), strict=True))
        lines.append({"rows": row, "served": served, "counts_by_language": {}})
    return curriculum, ServedRecord.of(lines, "run")


@pytest.mark.parametrize("count", [3, 60])
def test_a_picture_of_1200_pixels(tmp_path, count):
    curriculum, record = run_so_far([Source(f"text/l{i}", 50 + i) for i in range(count)], 900, 20)
    plot_served(curriculum, record, tmp_path / "served.png")
    data = (tmp_path / "served.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20], "big") == 1200


@pytest.mark.parametrize(("rows", "every"), [(1200, 4), (900, 300), (20, 20)])
def test_the_parts_of_a_run_add_up_to_it(rows, every):
    _, record = run_so_far([Source("text/en", 70), Source("text/km", 9)], rows, every)
    edges, shares = windows(record, ["text/km"])
    assert edges[0] == 0 and edges[-1] == rows and len(shares) <= WINDOWS and (np.diff(edges) > 0).all()
    assert shares @ np.diff(edges) == pytest.approx(record.by_source["text/km"][-1])


def test_other_suffixes_are_refused(tmp_path):
    curriculum, record = run_so_far([Source("text/en", 70)], 100, 20)
    with pytest.raises(SeallmError, match=r"served.pdf; use a name that ends in .png or .svg"):
        plot_served(curriculum, record, tmp_path / "served.pdf")
