"""Scripts of characters, and pieces that leave a script alone."""

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.scripts import script_guard, script_of


@pytest.mark.parametrize(
    ("character", "script"),
    [
        ("a", "LATIN"),
        ("ệ", "LATIN"),
        ("ก", "THAI"),
        ("ั", "THAI"),
        ("ຂ", "LAO"),
        ("។", "KHMER"),  # its own full stop
        ("၊", "MYANMAR"),
        ("中", "CJK"),
        ("の", "CJK"),
        (".", ""),
        ("7", ""),
        (" ", ""),
        ("\u0301", ""),
        ("\u200d", ""),
        ("👍", ""),
        ("\0", ""),
    ],
)
def test_script(character, script):
    assert script_of(character) == script


def test_guard_wants_another_script():
    admits = script_guard(["Latin"])
    assert [admits(piece) for piece in ("▁the", "việt", "...", "1", "▁กา", "។", "aก")] == [False] * 4 + [True] * 3


def test_guard_of_several_scripts_and_aliases():
    admits = script_guard(["latin", "Han", "Burmese"])
    assert not any(map(admits, ("a", "中の", "မြန်")))
    assert admits("ລາວ")


def test_ascii_spares_letters_with_diacritics():
    admits = script_guard(["ASCII"])
    assert [admits(piece) for piece in ("▁the", "--", "—", "▁việt", "กา")] == [False, False, False, True, True]


def test_no_script_refuses_nothing():
    assert script_guard([])("anything")


def test_an_unknown_script():
    with pytest.raises(SeallmError, match="no script 'Klingon'; use a Unicode script such as .*Thai"):
        script_guard(["Klingon"])
