"""A small corpus in several files with everything that a pipeline has to deal with."""

import gzip
import json
import pathlib
import random

import pytest

WORDS = {
    "id": "pasar pagi ramai ibu membeli sayur ikan segar hari minggu anak bermain bola lapangan desa sungai",
    "jv": "aku arep menyang pasar tuku beras lan iwak ing dina minggu esuk karo adhikku sing isih cilik",
    "th": "วันนี้ อากาศ ดี มาก เรา จึง ไป เดินเล่น ที่ สวน แม่ค้า ขาย ข้าวต้ม ทุก เช้า หน้า ตลาด เด็ก วิ่ง",
    "km": "ផ្សារ ពេល ព្រឹក មាន មនុស្ស ច្រើន ណាស់ ក្មេង ទៅ សាលា រៀន ដោយ កង់ រាល់ ថ្ងៃ ម្ដាយ ទិញ បន្លែ",
}


def sentence(language: str, generator: random.Random, words: int = 30) -> str:
    """Words of a language in random order."""
    words_of = WORDS[language].split()
    separator = "" if language in ("th", "km") else " "
    return separator.join(generator.choice(words_of) for _ in range(words))


@pytest.fixture
def messy_corpus(tmp_path) -> pathlib.Path:
    """Six files in three languages, with exact and near duplicates across them and unreadable lines."""
    generator = random.Random(1)
    directory = tmp_path / "messy"
    directory.mkdir()
    shared = {code: sentence(code, generator, 120) for code in WORDS}
    for number in range(6):
        lines = []
        for code in WORDS:
            lines += [json.dumps({"text": sentence(code, generator), "lang": code}).encode() for _ in range(12)]
            lines.append(json.dumps({"text": shared[code], "lang": code}).encode())
            lines.append(json.dumps({"text": shared[code] + f" {number}", "lang": code}).encode())
        lines.insert(5, b'{"text": "abc\xff"}')
        lines.insert(9, b"{broken")
        lines.insert(20, json.dumps({"text": "short", "lang": "id"}).encode())
        content = b"\n".join(lines)
        if number % 2:
            (directory / f"part{number}.jsonl.gz").write_bytes(gzip.compress(content))
        else:
            (directory / f"part{number}.jsonl").write_bytes(content)
    return directory
