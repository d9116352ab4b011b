"""BLOOM and BLOOMZ (arXiv 2211.05100): ALiBi, norms with biases, an embedding norm, one tensor for q, k and v."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.family import Family
from seallm_jax.models.families.rows import linear_rows, norm_rows, vocabulary_row
from seallm_jax.models.families.weight import Weight


def _read(read: ConfigReader) -> ModelConfig:
    hidden = read.whole("hidden_size", "n_embed")
    heads = read.whole("n_head", "num_attention_heads")
    if hidden % heads:
        raise SeallmError(f"config.json: hidden_size is {hidden}; it must be a multiple of n_head = {heads}")
    read.refuse_unless("apply_residual_connection_post_layernorm", False)
    read.refuse_unless("slow_but_exact", False)
    read.refuse_unless("n_inner", None, 4 * hidden)
    return ModelConfig(
        vocabulary_size=read.whole("vocab_size"),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_layers=read.whole("n_layer", "num_hidden_layers"),
        num_heads=heads,
        num_key_value_heads=heads,
        head_size=hidden // heads,
        norm="layer",
        norm_epsilon=read.number("layer_norm_epsilon"),
        embedding_norm=True,
        query_key_value_bias=True,
        output_bias=True,
        mlp_bias=True,
        gated=False,
        activation="gelu_tanh",
        positions="alibi",
        tie_embeddings=read.flag("tie_word_embeddings"),
        max_positions=read.whole("seq_length"),
        initializer_range=read.number("initializer_range"),
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    return {
        "apply_residual_connection_post_layernorm": False,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "layer_norm_epsilon": config.norm_epsilon,
        "n_head": config.num_heads,
        "n_layer": config.num_layers,
        "seq_length": config.max_positions,
        "slow_but_exact": False,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        "vocab_size": config.vocabulary_size,
    }


def _weights(config: ModelConfig) -> tuple[Weight, ...]:
    layer = "transformer.h.{layer}."
    rows = [
        vocabulary_row("embedding", "transformer.word_embeddings"),
        *norm_rows("embedding_norm", "transformer.word_embeddings_layernorm", bias=True),
        *norm_rows("layers.attention_norm", layer + "input_layernorm", bias=True),
    ]
    for part, name in enumerate(("query", "key", "value")):  # of each head, its three parts together
        fused = layer + "self_attention.query_key_value"
        rows += linear_rows(f"layers.attention.{name}", fused, "M", "HPD", bias=True, part=part, parts=3)
    rows += linear_rows("layers.attention.output", layer + "self_attention.dense", "HD", "M", bias=True)
    rows += norm_rows("layers.mlp_norm", layer + "post_attention_layernorm", bias=True)
    rows += linear_rows("layers.mlp.up", layer + "mlp.dense_h_to_4h", "M", "F", bias=True)
    rows += linear_rows("layers.mlp.down", layer + "mlp.dense_4h_to_h", "F", "M", bias=True)
    rows += norm_rows("final_norm", "transformer.ln_f", bias=True)
    return tuple(rows) if config.tie_embeddings else (*rows, vocabulary_row("head", "lm_head"))


BLOOM = Family(
    name="bloom",
    architecture="BloomForCausalLM",
    model_type="bloom",
    defaults={
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "seq_length": 2048,
    },
    read=_read,
    write=_write,
    weights=_weights,
    bare_architecture="BloomModel",
    prefix="transformer.",
)
