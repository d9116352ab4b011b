from __future__ import annotations

import jax
import pytest

from seallm_jax.planning.estimated_cycles import estimated_cycles

PROGRAM = """
%fused (p.1: f32[8]) -> f32[8] {
  ROOT %a = f32[8] add(p.1, p.1)
}

%body.1.clone (t.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8] fusion(%t), calls=%fused, backend_config={"estimated_cycles":"100"}
}

%condition (t.2: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT, backend_config={"estimated_cycles":"9223372036854775807"}
}

ENTRY %main.3 (p.2: f32[8]) -> f32[8] {
  %y = f32[8] fusion(p.2), calls=%fused, backend_config={"estimated_cycles":"7"}
  %w = (s32[], f32[8]) while(%y), condition=%condition, body=%body.1.clone
}
"""


class Compiled:
    def __init__(self, text):
        self._text = text

    def as_text(self):
        if self._text is None:
            raise jax.errors.JaxRuntimeError("not readable")
        return self._text


@pytest.mark.parametrize(("turns", "expected"), [(1, 107), (64, 6407)])
def test_what_is_in_a_loop_counts_for_each_turn(turns, expected):
    assert estimated_cycles(Compiled(PROGRAM), turns) == expected


def test_a_program_that_cannot_be_read_has_no_estimate():
    assert estimated_cycles(Compiled(None)) is None
