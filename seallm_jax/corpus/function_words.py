"""Function words: running text has them, lists of names and keywords do not."""

from __future__ import annotations

from collections.abc import Sequence

from seallm_jax.corpus.language_words import language_words

# Languages that are not in the word lists: of unsegmented scripts, so short strings that almost any sentence holds,
# and Vietnamese and Tamil, which are known by their letters
_FURTHER = {
    "th": ("ที่", "และ", "ของ", "การ", "ใน", "ไม่", "มี", "เป็น", "ได้", "ให้", "จะ", "ว่า", "กับ", "นี้", "แต่", "มา", "ไป", "ก็"),
    "lo": ("ທີ່", "ແລະ", "ຂອງ", "ການ", "ໃນ", "ບໍ່", "ມີ", "ເປັນ", "ໄດ້", "ໃຫ້", "ຈະ", "ວ່າ", "ກັບ", "ນີ້", "ແຕ່", "ມາ", "ໄປ", "ກໍ"),
    "km": ("និង", "នៃ", "ការ", "ក្នុង", "មាន", "មិន", "ជា", "បាន", "ដែល", "ទៅ", "នេះ", "ឲ្យ", "ឱ្យ", "នៅ", "ពី", "ដោយ", "របស់"),
    "my": ("သည်", "များ", "ကို", "နှင့်", "တွင်", "မှ", "၏", "တယ်", "ပါ", "မှာ", "ရန်", "ဖြစ်", "တို့", "မည်", "သော", "တဲ့", "၍"),
    "zh": ("的", "是", "在", "不", "了", "有", "和", "我", "这", "這", "人", "一", "他", "為", "为"),
    "vi": (
        "và", "của", "là", "có", "trong", "được", "cho", "với", "không", "những", "các", "một", "người", "này", "đã",
        "từ", "đến", "khi", "để", "như",
    ),
    # Tamil binds them to its words
    "ta": ("கள்", "க்கு", "ில்", "ும்", "மற்றும்", "ஒரு", "இந்த", "என்று", "அல்லது", "உள்ள", "வேண்டும்", "த்து", "ின்"),
}  # fmt: skip


def count_function_words(text: str, words: Sequence[str] | None, language: str) -> int | None:
    """How many different function words of a language a text has; None for a language without a list.

    Args:
      text: the text.
      words: its words in lower case, None for an unsegmented script. There, and in Tamil, function words are looked
        for anywhere in the text.
      language: code of the language.
    """
    listed = frozenset(_FURTHER.get(language, ())) or language_words().function_words(language)
    if not listed:
        return None
    if words is None or language == "ta":
        return sum(word in text for word in listed)
    return len(listed.intersection(words))
