import xml.etree.ElementTree

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.curriculum import Curriculum
from seallm_jax.data.plot import format_tokens, plot_mixture
from seallm_jax.data.source import Source

SOURCES = [Source("text/en", 70), Source("text/km", 9), Source("instructions/vi", 3), Source("text/never", 0)]


def compiled(sources=SOURCES):
    stages = (
        StageConfig(name="first", tokens=16 * 300),
        StageConfig(name="second", tokens=16 * 300, mixture="unimax", transition="cosine", transition_tokens=16 * 200),
    )
    return Curriculum.compile(stages, sources, sequence_length=16, batch_rows=4, seed=0)


def test_a_picture_of_1200_pixels(tmp_path):
    path = tmp_path / "mixture.png"
    plot_mixture(compiled(), path)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == 1200


def test_the_same_curriculum_draws_the_same_svg(tmp_path):
    for name in ("a.svg", "b.svg"):
        plot_mixture(compiled(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    xml.etree.ElementTree.parse(tmp_path / "a.svg")


def test_more_sources_than_colours(tmp_path):
    plot_mixture(compiled([Source(f"text/l{i}", i + 1) for i in range(30)]), tmp_path / "many.png")
    assert (tmp_path / "many.png").stat().st_size > 10_000


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(SeallmError, match=r"mixture.pdf; use a name that ends in .png or .svg"):
        plot_mixture(compiled(), tmp_path / "mixture.pdf")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1250, "1.25k"), (3e6, "3M"), (2.345e9, "2.35B"), (1e12, "1T")]
)
def test_numbers_of_tokens(count, text):
    assert format_tokens(count) == text
