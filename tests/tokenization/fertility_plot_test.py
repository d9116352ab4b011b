"""The picture of the fertility table."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.fertility import fertility_table
from seallm_jax.tokenization.fertility_plot import plot_fertility


@pytest.fixture(scope="module")
def rows(base, extension, sample_texts):
    parallel = {"en": sample_texts["en"][:1], "th": sample_texts["th"][:1]}
    return fertility_table(base, extension.tokenizer, sample_texts, parallel)


def test_writes_png_and_svg(rows, tmp_path):
    plot_fertility(rows, tmp_path / "a" / "relative.png")
    assert (tmp_path / "a" / "relative.png").read_bytes().startswith(b"\x89PNG")
    plot_fertility(rows, tmp_path / "relative.svg")
    drawing = (tmp_path / "relative.svg").read_text()
    assert "<svg" in drawing
    plot_fertility([row | {"base_relative": None} for row in rows], tmp_path / "bytes.svg")
    assert (tmp_path / "bytes.svg").read_text() != drawing


def test_wrong_use(rows, tmp_path):
    with pytest.raises(SeallmError, match=r"use one of \.png"):
        plot_fertility(rows, tmp_path / "plot.txt")
    with pytest.raises(SeallmError, match="no rows to draw"):
        plot_fertility([], tmp_path / "plot.png")
