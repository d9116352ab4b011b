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
