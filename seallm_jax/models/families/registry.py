"""All model families, by name and by config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.models.families.bloom import BLOOM
from seallm_jax.models.families.family import Family
from seallm_jax.models.families.gemma import GEMMA
from seallm_jax.models.families.gemma2 import GEMMA2
from seallm_jax.models.families.gemma3 import GEMMA3
from seallm_jax.models.families.llama import LLAMA
from seallm_jax.models.families.mistral import MISTRAL
from seallm_jax.models.families.olmo2 import OLMO2
from seallm_jax.models.families.qwen2 import QWEN2
from seallm_jax.models.families.qwen3 import QWEN3

FAMILIES: dict[str, Family] = {
    family.name: family for family in (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, BLOOM, OLMO2)
}


def supported_architectures() -> tuple[str, ...]:
    """Names of the classes in transformers whose checkpoints can be read and written."""
    return tuple(family.architecture for family in FAMILIES.values())


def family_named(name: str) -> Family:
    """The family that `ModelConfig.family` names. Raises SeallmError for an unknown one."""
    if name not in FAMILIES:
        raise SeallmError(f"model.family is {name!r}; use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def family_of(values: Mapping[str, Any]) -> Family:
    """The family of a config.json. Raises SeallmError for an architecture that is not supported, naming it."""
    architectures = values.get("architectures") or []
    for family in FAMILIES.values():
        known = (family.architecture, family.bare_architecture)
        if any(name in known for name in architectures):
            return family
        if not architectures and values.get("model_type") == family.model_type:
            return family
    found = ", ".join(architectures) or f"model_type {values.get('model_type')!r}"
    raise SeallmError(
        f"config.json: architecture {found} is not supported; supported are {', '.join(supported_architectures())}"
    )
