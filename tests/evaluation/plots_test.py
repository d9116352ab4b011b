"""Plots are well-formed SVG, the same for the same numbers."""

import xml.etree.ElementTree as ElementTree

import pytest

from seallm_jax.evaluation.plots import (
    DARK,
    MAXIMUM_POINTS,
    SHADES,
    _shades,
    _thin,
    accuracy_plot,
    bits_plot,
    curves_plot,
    darken,
    fertility_plot,
    language_curves_plot,
)

PLOTS = {
    "bits": lambda: bits_plot({"base": {"en": 1.0, "km": 3.0}, "final": {"km": 1.0}}, ["km", "en"]),
    "fertility": lambda: fertility_plot({"base": {"en": 1.0}, "extended": {"en": 1.0}}, "tokens"),
    "accuracy": lambda: accuracy_plot({"a": {"quiz km": (0.5, None)}, "b": {"km": (1.0, 0.0)}}, {"km": 0.25}),
    "curves": lambda: curves_plot({"loss": ([1, 2], [3.0, 2.0]), "$one$": ([5], [1.0])}),
    "languages": lambda: language_curves_plot({code: ([1e9], [1.0]) for code in ("en", "km", "lo", "xx", "$y")}),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_svg_without_dates_or_scripts(name):
    svg = PLOTS[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<script" not in svg and "<dc:date>" not in svg
    dark = darken(svg)
    assert not [colour for colour in DARK if colour in dark]
    assert ElementTree.fromstring(dark).attrib == root.attrib


def test_the_same_numbers_give_the_same_plot():
    assert PLOTS["bits"]() == PLOTS["bits"]()


def test_the_last_stage_always_has_the_accent():
    for count in range(1, 9):
        shades = _shades(count)
        assert len(shades) == count and shades[-1] == SHADES[-1]
        assert count == 1 or shades[0] == SHADES[0]


def test_long_curves_are_averaged_over_blocks():
    x, y = _thin((list(range(10_000)), [float(value) for value in range(10_000)]))
    assert len(x) <= MAXIMUM_POINTS and list(x) == list(y)
    assert sum(y) / len(y) == pytest.approx(4999.5, rel=0.01)
    assert _thin(([1], [2.0])) == ([1], [2.0])
