"""Personal data: numbers drawn by the rules of their issuers are masked, neighbours of them and other numbers stay."""

import datetime
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.corpus.personal_data import PLACEHOLDERS, mask_personal_data

DIGITS = st.text("0123456789", min_size=20, max_size=20)
DATES = st.dates(datetime.date(1930, 1, 1), datetime.date(2019, 12, 31))
LANGUAGE_DIGITS = {"th": 0x0E50, "lo": 0x0ED0, "my": 0x1040, "km": 0x17E0}


def masked_as(kind: str, number: str) -> bool:
    return mask_personal_data(f"nomor {number}, terima kasih") == (
        f"nomor {PLACEHOLDERS[kind]}, terima kasih",
        {kind: 1},
    )


def luhn(digits: str) -> str:
    """The digit that makes the sum of Luhn's test a multiple of ten, by trying all ten."""
    for last in "0123456789":
        values = [int(digit) for digit in reversed(digits + last)]
        values[1::2] = [value * 2 - 9 * (value > 4) for value in values[1::2]]
        if sum(values) % 10 == 0:
            return digits + last
    raise AssertionError


@given(DATES, DIGITS, st.booleans())
def test_indonesian_identity_number(born, digits, woman):
    number = "317405" + f"{born.day + 40 * woman:02}{born:%m%y}" + digits[:3] + "1"
    assert masked_as("national_id", number)
    assert mask_personal_data(number[:8] + "13" + number[10:])[1].get("national_id") is None  # a thirteenth month


@given(st.sampled_from("12345678"), DIGITS)
def test_thai_identity_number(first, digits):
    twelve = first + digits[:11]
    check = (11 - sum(int(digit) * (13 - place) for place, digit in enumerate(twelve)) % 11) % 10
    number = f"{twelve}{check}"
    grouped = "-".join((number[0], number[1:5], number[5:10], number[10:12], number[12]))
    assert masked_as("national_id", number) and masked_as("national_id", grouped)
    wrong = number[:12] + str((check + 1) % 10)
    assert "national_id" not in mask_personal_data(wrong)[1]


@given(DATES, DIGITS, st.sampled_from(["01", "14", "59", "71", "86"]))
def test_malaysian_identity_number(born, digits, place):
    assert masked_as("national_id", f"{born:%y%m%d}-{place}-{digits[:4]}")
    assert "national_id" not in mask_personal_data(f"{born:%y}13{born:%d}-{place}-{digits[:4]}")[1]


@given(st.sampled_from(["4539", "5555", "4485"]), DIGITS, st.sampled_from(["", " ", "-"]))
def test_card(prefix, digits, separator):
    number = luhn(prefix + digits[:11])
    written = separator.join(number[i : i + 4] for i in range(0, 16, 4))
    assert masked_as("card", written)
    wrong = number[:15] + str((int(number[15]) + 1) % 10)
    assert mask_personal_data(wrong) == (wrong, {})


@pytest.mark.parametrize(
    "number",
    [
        "0812-3456-7890", "+62 812 3456 7890", "(021) 555-6666", "081-234-5678", "089 123 4567", "+855 12 345 678",
        "012-345 6789", "0912 345 678", "+84 (28) 3822 9999", "09171234567", "+95 9 123 456 789", "+856 20 5555 1234",
        "859-292-3680", "02-123-4567",
    ],
)  # fmt: skip
def test_telephone(number):
    assert masked_as("phone", number)


@pytest.mark.parametrize("zero", LANGUAGE_DIGITS.values())
def test_digits_of_other_scripts(zero):
    number = "081-234-5678".translate({ord("0") + value: chr(zero + value) for value in range(10)})
    assert masked_as("phone", number)


@given(st.ip_addresses(v=4), st.ip_addresses(v=6))
def test_addresses(four, six):
    if not str(four).startswith("0."):
        assert masked_as("ip", str(four))
    exploded = ipaddress.IPv6Address(int(six)).exploded
    assert masked_as("ip", exploded)


@pytest.mark.parametrize("address", ["a.b@contoh.co.id", "first+tag@mail.example.org", "X_1@sub-domain.example.com"])
def test_e_mail(address):
    assert masked_as("email", address)


@pytest.mark.parametrize(
    "text",
    [
        "2018-09-28", "01-02-2018 12:30", "10.000.000.000", "0.123456789", "3.14159265358979", "ISBN 978-3-16-148410-0",
        "12:30:00:00", "Rp 1.250.000,00", "1945 1949 1950 1959", "+922337203685477.5807", "user@localhost", "a::b",
        "#123456789", "std::vector::size", "1,234,567,890,123",
    ],
)  # fmt: skip
def test_other_numbers_stay(text):
    assert mask_personal_data(text) == (text, {})


def test_counts_and_neighbours():
    text = "081234567890 021-555-6666/081234567891 a@b.co a@b.co 4111 1111 1111 1111"
    assert mask_personal_data(text) == (
        "<PHONE> <PHONE>/<PHONE> <EMAIL> <EMAIL> <CARD>",
        {"email": 2, "phone": 3, "card": 1},
    )


@given(st.text(st.sampled_from("0123456789 .-+()@:aA\n/")))
def test_fixed_point(text):
    once, _ = mask_personal_data(text)
    assert mask_personal_data(once) == (once, {})
