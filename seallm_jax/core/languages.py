"""Language codes, their names and scripts, and the run's fixed language order."""

from __future__ import annotations

import dataclasses

from seallm_jax.core.errors import SeallmError

# code -> (English name, Unicode script)
KNOWN_LANGUAGES = {
    "en": ("English", "Latin"),
    "id": ("Indonesian", "Latin"),
    "ms": ("Malay", "Latin"),
    "vi": ("Vietnamese", "Latin"),
    "th": ("Thai", "Thai"),
    "tl": ("Tagalog", "Latin"),
    "km": ("Khmer", "Khmer"),
    "lo": ("Lao", "Lao"),
    "my": ("Burmese", "Myanmar"),
    "jv": ("Javanese", "Latin"),
    "su": ("Sundanese", "Latin"),
    "min": ("Minangkabau", "Latin"),
    "ban": ("Balinese", "Latin"),
    "ceb": ("Cebuano", "Latin"),
    "ilo": ("Ilocano", "Latin"),
    "war": ("Waray", "Latin"),
    "ta": ("Tamil", "Tamil"),
    "zh": ("Chinese", "Han"),
}

# Other spellings of the same codes: ISO 639-2 and 639-3, macro-languages, older codes
LANGUAGE_ALIASES = {
    "eng": "en", "ind": "id", "in": "id", "zsm": "ms", "msa": "ms", "may": "ms", "zlm": "ms", "vie": "vi", "tha": "th",
    "fil": "tl", "tgl": "tl", "khm": "km", "lao": "lo", "mya": "my", "bur": "my", "jav": "jv", "jw": "jv",
    "sun": "su", "tam": "ta", "zho": "zh", "cmn": "zh",
}  # fmt: skip


def language_code(label: str) -> str:
    """The code this project uses for a language label of another convention, as `IND` or `ind_Latn`."""
    code = label.lower().replace("-", "_").partition("_")[0]
    return LANGUAGE_ALIASES.get(code, code)


def language_name(code: str) -> str:
    """English name of a language, or the code itself when it is not a known one."""
    return KNOWN_LANGUAGES.get(code, (code, ""))[0]


@dataclasses.dataclass(frozen=True)
class Languages:
    """The run's languages; the position of a code is the `language_id` in batches and metrics."""

    codes: tuple[str, ...]

    def __post_init__(self):
        if len(set(self.codes)) != len(self.codes):
            raise ValueError(f"language codes repeat: {self.codes}")

    def __len__(self) -> int:
        return len(self.codes)

    def id_of(self, code: str) -> int:
        """Index of `code`. Raises SeallmError for a language that the run does not have."""
        try:
            return self.codes.index(code)
        except ValueError:
            raise SeallmError(f"language {code!r} is not one of this run's languages {', '.join(self.codes)}") from None
