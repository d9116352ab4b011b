"""Zawgyi found and converted: one phrase in both encodings."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus import zawgyi
from seallm_jax.corpus.zawgyi import convert_zawgyi, zawgyi_probability

ZAWGYI = (
    "\u1019\u102c\u1010\u102d\u1000\u102c "
    "\u1031\u1005\u102c\u1004\u1039\u1037\u1031\u101b\u103d\u102c\u1000\u1039\u1019\u1088"
)
UNICODE = (
    "\u1019\u102c\u1010\u102d\u1000\u102c "
    "\u1005\u1031\u102c\u1004\u1037\u103a\u101b\u103e\u1031\u102c\u1000\u103a\u1019\u103e\u102f"
)


@pytest.fixture
def libraries():
    pytest.importorskip("myanmartools")
    pytest.importorskip("icu")


def test_probability(libraries):
    assert zawgyi_probability(ZAWGYI) > 0.99
    assert zawgyi_probability(UNICODE) < 0.01
    assert zawgyi_probability("kucing") == 0 == zawgyi_probability("")


def test_only_zawgyi_lines_change(libraries):
    text = f"{UNICODE}\n{ZAWGYI}\nkucing\n\nภาษาไทย"
    assert convert_zawgyi(text) == f"{UNICODE}\n{UNICODE}\nkucing\n\nภาษาไทย"
    assert convert_zawgyi(convert_zawgyi(text)) == convert_zawgyi(text)


def test_a_missing_library_is_named(monkeypatch):
    for name, call in (("myanmartools", zawgyi_probability), ("icu", lambda text: zawgyi._converter())):
        zawgyi._detector.cache_clear()
        zawgyi._converter.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, name, None)
        with pytest.raises(SeallmError, match="pip install 'seallm_jax\\[burmese\\]'"):
            call("က")
    zawgyi._detector.cache_clear()
    zawgyi._converter.cache_clear()
