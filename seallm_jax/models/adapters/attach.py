"""Adapters put on a decoder, and taken off again."""

from __future__ import annotations

import functools

import jax
from flax import nnx

from seallm_jax.core.adapter_config import PROJECTIONS, AdapterConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.adapters.adapted_projection import AdaptedProjection
from seallm_jax.models.adapters.adapted_vocabulary import AdaptedVocabulary
from seallm_jax.models.decoder import Decoder


def attach(decoder: Decoder, adapter: AdapterConfig, key: jax.Array) -> Decoder:
    """Replaces modules of `decoder` in place by adapted ones and returns it. Until trained, it computes what it did.

    Works on a stacked decoder with numbers or, under `nnx.eval_shape`, with shapes. Every drawn value depends on `key`
    and its place only.

    Raises:
      SeallmError: a target that the model does not have, or no new rows where they are to be trained.
    """
    config = decoder.config
    check_adapter(adapter, config)
    keys = dict(zip(PROJECTIONS, jax.random.split(key, len(PROJECTIONS)), strict=True))
    for name in PROJECTIONS:
        owner = decoder.layers.mlp if name in ("gate", "up", "down") else decoder.layers.attention
        base = getattr(owner, name, None)
        if base is None or not (name in adapter.names or adapter.quantize != "none"):
            continue
        drawn = keys[name] if name in adapter.names else None
        setattr(owner, name, AdaptedProjection(base, adapter, drawn, stacked=True))
    for index, name in enumerate(("embedding", "head")):
        if (name in adapter.names or adapter.train_new_rows) and hasattr(decoder, name):
            drawn = jax.random.fold_in(key, index) if name in adapter.names else None
            adapted = AdaptedVocabulary(getattr(decoder, name), config, adapter, drawn, is_head=name == "head")
            setattr(decoder, name, adapted)
    return decoder


def check_adapter(adapter: AdapterConfig, config: ModelConfig) -> None:
    """Raises SeallmError where adapter and model do not fit."""
    if not config.gated and {"gate", "gate_proj"} & set(adapter.targets):
        raise SeallmError(f"adapter.targets has 'gate', which this {config.family} model does not have; leave it out")
    if config.tie_embeddings and "head" in adapter.names and "embedding" not in adapter.names:
        raise SeallmError("adapter.targets has 'head', which is tied to the embedding; adapt 'embedding' instead")
    if adapter.train_new_rows and not 0 < adapter.first_new_row < config.vocabulary_size:
        raise SeallmError(
            f"adapter.train_new_rows: the model has {config.vocabulary_size} rows and the first new one is "
            f"{adapter.first_new_row}; extend the vocabulary first or leave it out"
        )


def merged_kernel(decoder: Decoder, path: str) -> jax.Array:
    """The kernel at a dotted path of an adapted decoder, float32, with everything added that the adapter does."""
    *modules, _ = path.split(".")
    return functools.reduce(getattr, modules, decoder).merged_kernel()  # type: ignore[attr-defined]


def enable_dropout(decoder: Decoder, key: jax.Array) -> None:
    """Lets adapters drop inputs in the next forward pass. What is dropped depends on `key` and the shapes only."""
    for index, name in enumerate(PROJECTIONS):
        owner = decoder.layers.mlp if name in ("gate", "up", "down") else decoder.layers.attention
        module = getattr(owner, name, None)
        if isinstance(module, AdaptedProjection) and module.dropout:
            keys_L = jax.random.split(jax.random.fold_in(key, index), decoder.config.num_layers)
            module.dropout_key = nnx.Variable(keys_L)
