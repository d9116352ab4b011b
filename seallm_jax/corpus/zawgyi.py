"""Burmese in the Zawgyi encoding: found and converted to Unicode.

Zawgyi puts glyphs at code points of the Myanmar block in the order of writing, so that the same text looks like another
one to every tool. Here are the correspondence of its code points, which is published with the fonts and in CLDR's
`Zawgyi-my` rules, and the order of a Burmese syllable (Unicode Technical Note 11, Unicode Standard chapter 16).
"""

from __future__ import annotations

import functools
import re

# Glyphs that carry a consonant, and signs that follow one. Several Zawgyi code points are forms of one letter for
# different widths; a stacked consonant is one code point and becomes a virama with the consonant.
_LETTERS = {
    0x106A: "\u1009", 0x106B: "\u100a", 0x106E: "\u100d\u1039\u100d", 0x106F: "\u100d\u1039\u100e", 0x1086: "\u103f",
    0x108F: "\u1014", 0x1090: "\u101b", 0x1091: "\u100f\u1039\u100d", 0x1092: "\u100b\u1039\u100c",
    0x1097: "\u100b\u1039\u100b",
}  # fmt: skip
_STACKED = {
    0x1060: "\u1000", 0x1061: "\u1001", 0x1062: "\u1002", 0x1063: "\u1003", 0x1065: "\u1005", 0x1066: "\u1006",
    0x1067: "\u1006", 0x1068: "\u1007", 0x1069: "\u1008", 0x106C: "\u100b", 0x106D: "\u100c", 0x1070: "\u100f",
    0x1071: "\u1010", 0x1072: "\u1010", 0x1073: "\u1011", 0x1074: "\u1011", 0x1075: "\u1012", 0x1076: "\u1013",
    0x1077: "\u1014", 0x1078: "\u1015", 0x1079: "\u1016", 0x107A: "\u1017", 0x107B: "\u1018", 0x107C: "\u1019",
    0x1085: "\u101c", 0x1093: "\u1018",
}  # fmt: skip
_KINZI = "\u1004\u103a\u1039"
_YA, _RA, _WA, _HA, _ASAT, _E = "\u103b", "\u103c", "\u103d", "\u103e", "\u103a", "\u1031"
_SIGNS = {
    0x1033: "\u102f", 0x1034: "\u1030", 0x1039: _ASAT, 0x103A: _YA, 0x103B: _RA, 0x103C: _WA, 0x103D: _HA,
    0x105A: "\u102b" + _ASAT, 0x1064: _KINZI, 0x107D: _YA, 0x1087: _HA, 0x1088: _HA + "\u102f",
    0x1089: _HA + "\u1030", 0x108A: _WA + _HA, 0x108B: _KINZI + "\u102d", 0x108C: _KINZI + "\u102e",
    0x108D: _KINZI + "\u1036", 0x108E: "\u102d\u1036", 0x1094: "\u1037", 0x1095: "\u1037",
    0x1096: "\u1039\u1010" + _WA,
} | {code: _RA for code in range(0x107E, 0x1085)}  # fmt: skip
_MAPPED = _LETTERS | _SIGNS | {code: "\u1039" + letter for code, letter in _STACKED.items()}

_CONSONANT = "\u1000-\u102a\u103f\u106a\u106b\u106e\u106f\u1086\u108f-\u1092\u1097"
_RA_GLYPHS = "\u103b\u107e-\u1084"
_FOLLOWING = (
    "\u102b-\u1030\u1032-\u103a\u103c-\u103e\u105a\u1060-\u1069\u106c\u106d\u1070-\u107d"
    "\u1085\u1087-\u108e\u1093-\u1096"
)
_ZERO_AS_WA = re.compile("(?<![\u1040-\u1049])\u1040(?![\u1040-\u1049.,])")
# one Zawgyi glyph shows the whole word; others write it with the digit four
_AFOREMENTIONED = re.compile("\u104e(?:\u1004\u1039\u1038)?|\u1044(?=\u1004\u1039\u1038)\u1004\u1039\u1038")
# a syllable; or, where no consonant is near, the signs that stand alone, so that no Zawgyi code point is left
_SYLLABLE = re.compile(
    f"(?:\u1031[\u1037\u1094\u1095]*|[{_RA_GLYPHS}])*[{_CONSONANT}\u104e]"
    f"(?:[{_FOLLOWING}]|[{_RA_GLYPHS}](?![\u1031{_RA_GLYPHS}]*[{_CONSONANT}]))*"
    f"|[\u1031{_RA_GLYPHS}{_FOLLOWING}]+"
)
_SPACE_BEFORE_SIGN = re.compile(f"[ \u200b]+(?=[{_FOLLOWING}])")
_SPELLINGS = (
    ("\u1025\u102e", "\u1026"), ("\u1025\u103a", "\u1009\u103a"), ("\u1025\u1037\u103a", "\u1009\u1037\u103a"),
    ("\u1025\u1039", "\u1009\u1039"), ("\u1005" + _YA, "\u1008"),
    ("\u102d\u102e", "\u102e"), ("\u102f\u1030", "\u102f"), ("\u102f\u103a", "\u102f"),
)  # fmt: skip
_AFTER_ASAT = {_YA, "\u102d", "\u102e", "\u102f", "\u1032"}
_PARTS = re.compile(f"{_KINZI}|\u1039[\u1000-\u1021]|.", re.DOTALL)

# The order of the parts of a syllable after its consonant. Asat stands next to the consonant that it silences, or after
# the vowel AA of which it makes another tone; dot below precedes it.
_ORDER = {
    _YA: 4, _RA: 5, _WA: 6, _HA: 7, _E: 8, "\u102d": 9, "\u102e": 9, "\u1032": 9, "\u102f": 10, "\u1030": 10,
    "\u102b": 11, "\u102c": 11, "\u1036": 13, "\u1037": 14, "\u1038": 16,
}  # fmt: skip

# What only one of the encodings writes. Zawgyi: the vowel E and the medial RA before their consonant, a silencing sign
# with no consonant below it, glyphs of its own. Unicode: the vowel E after its consonant, the medial HA.
_ZAWGYI_SIGNS = re.compile(
    f"(?<![{_CONSONANT}\u103b-\u103e\u105e-\u1060\u1031])\u1031(?=\u1031*[{_RA_GLYPHS}]?[{_CONSONANT}])"
    f"|\u1039(?![\u1000-\u1021])|[\u1033\u1034\u105a\u1060-\u1097]"
)
_UNICODE_SIGNS = re.compile(
    f"[\u1000-\u1021\u103b-\u103e]\u1031(?![\u1031{_RA_GLYPHS}{_CONSONANT}\u1040])"
    "|\u103e|\u1004\u103a\u1039|\u103a(?=[\u1000-\u1021\u1038\u1039\u104a\u104b])"
)
_MYANMAR = re.compile("[\u1000-\u109f]")


def zawgyi_evidence(text: str) -> int:
    """How many spellings only Zawgyi has less how many only Unicode has; above 0 the text is Zawgyi, 0 is undecided."""
    return len(_ZAWGYI_SIGNS.findall(text)) - len(_UNICODE_SIGNS.findall(text))


def convert_zawgyi(text: str) -> str:
    """`text` with each line that is Zawgyi converted to Unicode; other lines are left as they are.

    A line that could be either follows the text as a whole. Converting again changes nothing.
    """
    if not _MYANMAR.search(text):
        return text
    overall = zawgyi_evidence(text)
    lines = text.split("\n")
    return "\n".join(_to_unicode(line) if (zawgyi_evidence(line) or overall) > 0 else line for line in lines)


def _to_unicode(line: str) -> str:
    line = _AFOREMENTIONED.sub("\u104e\u1004\u1039\u1038", _ZERO_AS_WA.sub("\u101d", line))
    line = _SPACE_BEFORE_SIGN.sub("", line)
    return _SYLLABLE.sub(lambda match: _syllable(match[0]), line)


@functools.lru_cache(maxsize=1 << 16)
def _syllable(zawgyi: str) -> str:
    """One syllable in the order of Unicode; repeated signs are written once."""
    parts = dict.fromkeys(_PARTS.findall(zawgyi.translate(_MAPPED)))
    if {"\u102d", "\u102f", _ASAT} <= parts.keys():
        del parts[_ASAT]  # the vowel O is never silenced
    rank = {part: _ORDER.get(part, 2 if part[0] == "\u1039" else 1) for part in parts}
    rank[_KINZI] = 0
    rank[_ASAT] = 3 if parts.keys() & _AFTER_ASAT and not {_E, "\u102c"} <= parts.keys() else 15
    unicode = "".join(sorted(parts, key=rank.__getitem__))
    for wrong, right in _SPELLINGS:
        unicode = unicode.replace(wrong, right)
    return unicode
