"""The picture of plans."""

from __future__ import annotations

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.plan_plot import plot_plans
from tests.planning.plans import TOO_LARGE, plan, step_time

PLANS = {
    "as it is": plan(),
    "too large": plan(**TOO_LARGE),
    "other": plan(time=step_time(0.25), peak_bytes=15 * 2**30, temporary_bytes=12 * 2**30),
    "refused": plan(**TOO_LARGE | {"needed_bytes": None}),
}


def test_it_is_a_picture(tmp_path):
    plot_plans(PLANS, tmp_path / "plans.png")
    assert (tmp_path / "plans.png").read_bytes().startswith(b"\x89PNG")
    plot_plans({"refused": PLANS["refused"]}, tmp_path / "nothing.png")


def test_the_same_plans_make_the_same_file_and_others_another(tmp_path):
    files = [tmp_path / name for name in ("a.svg", "b.svg", "c.svg")]
    for file, plans in zip(files, (PLANS, PLANS, PLANS | {"other": plan()}), strict=True):
        plot_plans(plans, file)
    first, second, third = (file.read_bytes() for file in files)
    assert first == second != third


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(SeallmError, match="ends in .png or .svg"):
        plot_plans(PLANS, tmp_path / "plans.pdf")
