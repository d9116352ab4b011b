"""The check that configuration classes share."""

from __future__ import annotations

from typing import Any


def require(condition: bool, key: str, value: Any, rule: str) -> None:
    """Raises ValueError naming the key, its value and the rule it breaks, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{key} is {value!r}; {rule}")
