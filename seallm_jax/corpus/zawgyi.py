"""Burmese in the Zawgyi encoding: found and converted to Unicode.

Zawgyi puts glyphs at code points of the Myanmar block in the order of writing, so that the same text looks like another
one to every tool. The detector is Google's Markov model (`myanmartools`), the conversion ICU's `Zawgyi-my` rules
(`PyICU`), as its authors recommend.
"""

from __future__ import annotations

import functools
from typing import Any

from seallm_jax.core.errors import SeallmError

THRESHOLD = 0.95  # probability from which a line counts as Zawgyi


def zawgyi_probability(text: str) -> float:
    """How likely a text is Zawgyi, in [0, 1]; 0 for text without Burmese. Raises SeallmError without `myanmartools`."""
    return max(0.0, float(_detector().get_zawgyi_probability(text)))  # -inf where there is nothing to tell by


def convert_zawgyi(text: str, *, threshold: float = THRESHOLD) -> str:
    """`text` with each line that is Zawgyi converted to Unicode; other lines are left as they are.

    Raises:
      SeallmError: `myanmartools` or `PyICU` is not installed.
    """
    lines = text.split("\n")
    return "\n".join(
        _converter().transliterate(line) if zawgyi_probability(line) >= threshold else line for line in lines
    )


@functools.cache
def _detector() -> Any:
    try:
        from myanmartools import ZawgyiDetector
    except ImportError:
        raise SeallmError("finding Zawgyi text needs myanmartools: pip install 'seallm_jax[burmese]'") from None
    return ZawgyiDetector()


@functools.cache
def _converter() -> Any:
    try:
        import icu
    except ImportError:
        raise SeallmError(
            "converting Zawgyi text needs PyICU and the ICU library: apt install libicu-dev pkg-config,"
            " then pip install 'seallm_jax[burmese]'"
        ) from None
    return icu.Transliterator.createInstance("Zawgyi-my")
