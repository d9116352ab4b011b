"""Reading a config.json key by key, with one clear error for each way it can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError


class ConfigReader:
    """The values of a config.json, or of a section of it.

    A key that is absent has the default of the class in transformers; a key that is null is not absent. Every method
    raises SeallmError with key and value.
    """

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any], *, where: str = "config.json"):
        self._values = values
        self._defaults = defaults
        self._where = where

    def get(self, key: str) -> Any:
        """The value, or the default, or None."""
        return self._values.get(key, self._defaults.get(key))

    def whole(self, *keys: str, least: int = 1) -> int:
        """A whole number from `least` on. Several keys are spellings of one, and must agree."""
        found = {key: value for key in keys if (value := self.get(key)) is not None} or {keys[0]: None}
        for key, value in found.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise self._error(key, f"a whole number from {least} on is needed")
            if value != next(iter(found.values())):
                raise self._error(key, f"{keys[0]} is {found[keys[0]]!r}, and they must agree")
        return next(iter(found.values()))

    def number(self, key: str) -> float:
        """A number, as a float."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(key, "a number is needed")
        return float(value)

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self.get(key)
        if not isinstance(value, bool):
            raise self._error(key, "true or false is needed")
        return value

    def choice(self, key: str, choices: Mapping[str, Any]) -> Any:
        """What `choices` has for the value."""
        value = self.get(key)
        if not isinstance(value, str) or value not in choices:
            raise self._error(key, f"supported are {', '.join(map(repr, choices))}")
        return choices[value]

    def refuse_unless(self, key: str, *supported: Any) -> None:
        """Only these values, or no such key, mean a model that is computed as it is here."""
        if key in self._values and self._values[key] not in supported:
            raise self._error(key, f"only {' or '.join(dict.fromkeys(map(repr, supported)))} is supported")

    def _error(self, key: str, rule: str) -> SeallmError:
        return SeallmError(f"{self._where}: {key} is {self.get(key)!r}; {rule}")
