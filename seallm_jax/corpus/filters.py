"""Which documents are not worth training on, with thresholds per language."""

from __future__ import annotations

import functools

from seallm_jax.core.corpus_config import FilterConfig
from seallm_jax.corpus.character_classes import DIGIT, LETTER, SPACE, SYMBOL, character_counts
from seallm_jax.corpus.function_words import count_function_words
from seallm_jax.corpus.perplexity import load_perplexity_models
from seallm_jax.corpus.repetition import duplicate_share, ngram_repetition, repetition_bounds, unit_codes
from seallm_jax.corpus.thresholds import UNSEGMENTED, Thresholds, thresholds

SAMPLE_CHARACTERS = 20_000  # judged of a longer document: its beginning
SHORT_LINE = 200  # a longer line is running text, whatever it mentions
BULLETS = ("-", "*", "•", "‣", "▪", "■", "●", "○", "·", "–", "—", "»", ">", "►", "✓", "➤", "◆")
ELLIPSES = ("...", "…", "[…]", "(…)", "…]")
# What pages say beside their text, in the languages of the region; all in lower case
BOILERPLATE = (
    "javascript", "cookie", "lorem ipsum", "privacy policy", "terms of use", "terms of service", "terms and conditions",
    "all rights reserved", "subscribe to", "sign up for", "log in to", "click here", "read more", "share this",
    "kebijakan privasi", "syarat dan ketentuan", "hak cipta dilindungi", "hak cipta terpelihara", "dasar privasi",
    "baca juga", "klik di sini", "langganan newsletter", "chính sách bảo mật", "điều khoản sử dụng", "xem thêm",
    "bản quyền thuộc", "đăng nhập", "patakaran sa privacy", "magbasa pa", "คุกกี้", "นโยบายความเป็นส่วนตัว", "สงวนลิขสิทธิ์",
    "อ่านเพิ่มเติม", "คลิกที่นี่", "គោលការណ៍ឯកជនភាព", "រក្សាសិទ្ធិ", "អានបន្ថែម", "ນະໂຍບາຍຄວາມເປັນສ່ວນຕົວ", "ສະຫງວນລິຂະສິດ",
    "ອ່ານເພີ່ມຕື່ມ", "ကိုယ်ရေးအချက်အလက် မူဝါဒ", "မူပိုင်ခွင့်", "ဆက်ဖတ်ရန်", "தனியுரிமைக் கொள்கை", "மேலும் படிக்க",
)  # fmt: skip


class TextFilter:
    """Names the reason why a document is dropped, by thresholds that fit its language.

    Made once for a run (it loads the perplexity models that the config names) and then called for each document.
    """

    def __init__(self, config: FilterConfig = FilterConfig()):
        """Raises SeallmError for an unknown threshold, or perplexity models that cannot be read."""
        self._enabled = config.enabled
        for language in config.thresholds:
            thresholds(language, config.thresholds)
        self._thresholds = functools.cache(lambda language: thresholds(language, config.thresholds))
        self._perplexity = load_perplexity_models(config.perplexity_models) if config.perplexity_models else {}

    def reason(self, text: str, language: str) -> str | None:
        """Why the document is dropped, as "repeated lines"; None for a document that is kept."""
        if not self._enabled:
            return None
        limits = self._thresholds(language)
        sample = text[:SAMPLE_CHARACTERS].lower()
        words = None if language in UNSEGMENTED else sample.split()
        reason = (
            _character_reason(sample, words, limits)
            or _line_reason(sample, limits)
            or _repetition_reason(sample, words, limits)
            or _function_word_reason(sample, words, language, limits)
        )
        if reason is None and language in self._perplexity:
            reason = "high perplexity" if self._perplexity[language](text) > limits.maximum_perplexity else None
        return reason


def _character_reason(text: str, words: list[str] | None, limits: Thresholds) -> str | None:
    counts = character_counts(text)
    visible = int(counts.sum() - counts[SPACE])
    units = int(counts[LETTER]) if words is None else len(words)
    if units < limits.minimum_units:
        return "too few letters" if words is None else "too few words"
    if counts[LETTER] < limits.minimum_letter_share * visible:
        return "few letters"
    if counts[DIGIT] > limits.maximum_digit_share * visible:
        return "many digits"
    if counts[SYMBOL] > limits.maximum_symbol_share * visible:
        return "many symbols"
    if words is not None and not limits.minimum_word_length <= visible / units <= limits.maximum_word_length:
        return "odd word length"
    return None


def _line_reason(text: str, limits: Thresholds) -> str | None:
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if len(lines) >= limits.minimum_list_lines:
        if sum(line.startswith(BULLETS) for line in lines) > limits.maximum_bullet_share * len(lines):
            return "list of bullets"
        if sum(line.endswith(ELLIPSES) for line in lines) > limits.maximum_ellipsis_share * len(lines):
            return "lines cut short"
    if duplicate_share(lines) > limits.maximum_duplicate_line_share:
        return "repeated lines"
    if "\n\n" in text and duplicate_share(text.split("\n\n")) > limits.maximum_duplicate_paragraph_share:
        return "repeated paragraphs"
    phrases = [phrase for phrase in BOILERPLATE if phrase in text]
    if phrases:
        short = (line for line in lines if len(line) < SHORT_LINE)
        matching = sum(len(line) for line in short if any(phrase in line for phrase in phrases))
        if matching > limits.maximum_boilerplate_share * sum(map(len, lines)):
            return "boilerplate"
    return None


def _repetition_reason(text: str, words: list[str] | None, limits: Thresholds) -> str | None:
    sizes = {"top": int(limits.top_ngram), "duplicate": int(limits.duplicate_ngram)}
    top, duplicate = 1.0, 1.0
    if words is not None:
        top, duplicate = repetition_bounds(words, **sizes)
    if top > limits.maximum_top_ngram_share or duplicate > limits.maximum_duplicate_ngram_share:
        top, duplicate = ngram_repetition(
            unit_codes(text, words=words), **sizes, tolerated=limits.maximum_duplicate_ngram_share
        )
    if top > limits.maximum_top_ngram_share:
        return "one phrase over and over"
    if duplicate > limits.maximum_duplicate_ngram_share:
        return "repeated phrases"
    return None


def _function_word_reason(text: str, words: list[str] | None, language: str, limits: Thresholds) -> str | None:
    if (len(text) if words is None else len(words)) < limits.function_word_units:
        return None
    found = count_function_words(text, words, language)
    return "no function words" if found is not None and found < limits.minimum_function_words else None
