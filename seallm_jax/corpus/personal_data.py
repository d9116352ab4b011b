"""Personal data found and replaced by placeholders."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

PLACEHOLDERS = {"email": "<EMAIL>", "phone": "<PHONE>", "ip": "<IP>", "national_id": "<ID>", "card": "<CARD>"}
_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
_IP_V4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IP_V6 = re.compile(r"(?<![\w:])(?=[0-9A-Fa-f:]*[0-9A-Fa-f])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}(?![\w:])")
# digits in groups, as numbers of telephones, cards and identity papers are written; digits of any script
_NUMBER = re.compile(r"(?<![\w.,+-])(?:\+|\(\+?)?\d(?:(?:[ .–-]|\)[ -]?|[ -]?\()?\d){7,24}(?![\w]|[.,]\d)")
_GROUP = re.compile(r"\d+")
_SINGAPORE = re.compile(r"(?<!\w)[STFG]\d{7}[A-Z](?!\w)")
_DOTTED = re.compile(r"\.\d{1,3}\.\d")
_FIVE_DIGITS = re.compile(r"\d[ .()–-]{0,2}\d[ .()–-]{0,2}\d[ .()–-]{0,2}\d[ .()–-]{0,2}\d")
# codes of the Indonesian provinces
_PROVINCES = {
    *range(11, 20),
    21,
    *range(31, 37),
    *range(51, 54),
    *range(61, 66),
    *range(71, 77),
    81,
    82,
    *range(91, 98),
}
# birth-place codes of the Malaysian identity card that were never given out
_NO_BIRTH_PLACE = {0, 17, 18, 19, 20, 69, 70, 73, 80, 81, 94, 95, 96, 97}


def mask_personal_data(text: str) -> tuple[str, dict[str, int]]:
    """Replaces e-mail addresses, telephone numbers, IP addresses, identity and card numbers by placeholders.

    Telephone numbers: international with a plus sign, national with a leading zero in the lengths of the region,
    North American. Identity numbers: Indonesian NIK (16 digits with a date of birth), Thai (13 digits with check
    digit), Malaysian MyKad (with hyphens, date and place of birth), Singaporean NRIC (with check letter). Cards: 13 to
    19 digits of an issuer's range that pass Luhn's test. Masking again changes nothing.

    Returns:
      The masked text, and how many of each kind were replaced: keys email, phone, ip, national_id, card; only kinds
      that occurred.
    """
    counts: collections.Counter[str] = collections.Counter()

    def placeholder(kind: str) -> str:
        counts[kind] += 1
        return PLACEHOLDERS[kind]

    if "@" in text:
        text = _EMAIL.sub(lambda match: placeholder("email"), text)
    if "::" in text or text.count(":") > 3:
        text = _IP_V6.sub(lambda match: placeholder("ip") if _is_ip_v6(match[0]) else match[0], text)
    if _DOTTED.search(text):
        text = _IP_V4.sub(lambda match: placeholder("ip") if _is_ip_v4(match[0]) else match[0], text)
    if _FIVE_DIGITS.search(text):
        text = _SINGAPORE.sub(lambda match: placeholder("national_id") if _is_nric(match[0]) else match[0], text)
        text = _NUMBER.sub(lambda match: _mask_numbers(match[0], placeholder), text)
    return text, dict(counts)


def _mask_numbers(run: str, placeholder) -> str:
    """Masks the longest numbers of a run of digit groups, from the left."""
    # a number begins and ends at a space: what is cut off at a point would be a piece of a decimal fraction
    pieces = run.split(" ")
    masked, first = [], 0
    while first < len(pieces):
        for last in range(len(pieces), first, -1):
            if kind := _number_kind(" ".join(pieces[first:last])):
                masked.append(placeholder(kind))
                first = last
                break
        else:
            masked.append(pieces[first])
            first += 1
    return " ".join(masked)


def _number_kind(number: str) -> str | None:
    groups = [group.translate(_ASCII_DIGITS) for group in _GROUP.findall(number)]
    sizes = [len(group) for group in groups]
    digits = "".join(groups)
    if not digits.isascii():
        return None
    dotted = "." in number
    if not dotted and (_is_nik(digits, sizes) or _is_thai_id(digits, sizes) or _is_mykad(digits, number)):
        return "national_id"
    if not dotted and "+" not in number and _is_card(digits, sizes):
        return "card"
    return "phone" if _is_phone(number, digits, sizes) else None


_ASCII_DIGITS = {
    ord(zero) + value: str(value) for zero in "\u0e50\u0ed0\u1040\u1090\u17e0\uff10" for value in range(10)
}  # Thai, Lao, Burmese, Shan, Khmer, full-width


def _is_phone(number: str, digits: str, sizes: Sequence[int]) -> bool:
    if not digits:
        return False
    if "+" in number:
        return 8 <= len(digits) <= 15 and digits[0] != "0"
    # an area code or the first digits of a mobile number, then groups of three or four; dates have shorter ones
    if list(sizes) == [3, 3, 4] and digits[0] > "1":  # North America
        return True
    grouped = len(sizes) == 1 or 2 <= sizes[0] <= 5 and all(3 <= size <= 8 for size in sizes[1:])
    return 9 <= len(digits) <= 13 and digits[0] == "0" and digits[1] != "0" and grouped


def _is_nik(digits: str, sizes: Sequence[int]) -> bool:
    if len(digits) != 16 or list(sizes) not in ([16], [6, 6, 4]) or int(digits[:2]) not in _PROVINCES:
        return False
    day, month = int(digits[6:8]), int(digits[8:10])
    return (1 <= day <= 31 or 41 <= day <= 71) and 1 <= month <= 12 and digits[12:] != "0000"


def _is_thai_id(digits: str, sizes: Sequence[int]) -> bool:
    if len(digits) != 13 or list(sizes) not in ([13], [1, 4, 5, 2, 1]) or not "1" <= digits[0] <= "8":
        return False
    weighted = sum(int(digit) * weight for digit, weight in zip(digits, range(13, 1, -1), strict=False))
    return (11 - weighted % 11) % 10 == int(digits[12])


def _is_mykad(digits: str, number: str) -> bool:
    if not re.fullmatch(r"\d{6}-\d{2}-\d{4}", number):
        return False
    return 1 <= int(digits[2:4]) <= 12 and 1 <= int(digits[4:6]) <= 31 and int(digits[6:8]) not in _NO_BIRTH_PLACE


def _is_nric(number: str) -> bool:
    total = sum(int(d) * w for d, w in zip(number[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += 4 if number[0] in "TG" else 0
    return number[8] == ("JZIHGFEDCBA" if number[0] in "ST" else "XWUTRQPNMLK")[total % 11]


def _is_card(digits: str, sizes: Sequence[int]) -> bool:
    if not 13 <= len(digits) <= 19 or not re.match(r"3[47]|3[0568]|4|5[1-5]|2[2-7]|6", digits):
        return False
    if not (len(sizes) == 1 or list(sizes[:3]) == [4, 4, 4] or list(sizes) in ([4, 6, 5], [4, 6, 4])):
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _is_ip_v4(address: str) -> bool:
    parts = address.split(".")
    return all(int(part) <= 255 and (part == "0" or part[0] != "0") for part in parts) and parts[0] != "0"


def _is_ip_v6(address: str) -> bool:
    groups = address.split(":")
    filled = [group for group in groups if group]
    if address.count("::") > 1 or ":::" in address or len(filled) < 3:
        return False
    # eight groups, or fewer around one gap; a clock's 12:30:00:00 has neither
    return len(groups) == 8 == len(filled) or "::" in address and any(len(group) > 2 for group in filled)
