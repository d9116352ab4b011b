"""What the families with rotary positions share: keys of config.json and names of tensors."""

from __future__ import annotations

from typing import Any

from seallm_jax.core.schema import ModelConfig, RopeConfig
from seallm_jax.models.families.config_reader import ConfigReader
from seallm_jax.models.families.rope import read_rope, write_rope
from seallm_jax.models.families.rows import linear_rows, norm_rows, vocabulary_row
from seallm_jax.models.families.weight import Weight

DEFAULTS: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "attention_bias": False,
}
# Names in config.json; for an activation with several the first is written.
ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
    "gelu_new": "gelu_tanh",
}
# Tensors that checkpoints of early versions of transformers carry.
REDUNDANT = ("rotary_emb.inv_freq",)

_NORMS = {  # by placement, in the order of the layer
    "pre": {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "post": {"attention_output_norm": "post_attention_layernorm", "mlp_output_norm": "post_feedforward_layernorm"},
    "sandwich": {
        "attention_norm": "input_layernorm",
        "attention_output_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_output_norm": "post_feedforward_layernorm",
    },
}


def read_rotary(read: ConfigReader, *, activation: Any, rope: RopeConfig, **switches: Any) -> ModelConfig:
    """The shape of a model of one of these families; `switches` are those that not all of them have."""
    hidden, heads = read.whole("hidden_size"), read.whole("num_attention_heads")
    return ModelConfig(
        vocabulary_size=read.whole("vocab_size"),
        hidden_size=hidden,
        intermediate_size=read.whole("intermediate_size"),
        num_layers=read.whole("num_hidden_layers"),
        num_heads=heads,
        num_key_value_heads=heads if read.get("num_key_value_heads") is None else read.whole("num_key_value_heads"),
        head_size=hidden // heads if read.get("head_dim") is None else read.whole("head_dim"),
        norm_epsilon=read.number("rms_norm_eps"),
        activation=activation,
        rope=rope,
        tie_embeddings=read.flag("tie_word_embeddings"),
        max_positions=read.whole("max_position_embeddings"),
        initializer_range=read.number("initializer_range"),
        **switches,
    )


def write_rotary(config: ModelConfig) -> dict[str, Any]:
    """The keys that `read_rotary` reads, with those of one rotary embedding for all layers."""
    rope = write_rope(config.rope, max_positions=config.max_positions)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {
        "attention_dropout": 0.0,
        "head_dim": config.head_size,
        "hidden_act": write_activation(config),
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": rope,  # transformers 5
        "rope_scaling": scaling if config.rope.type != "default" else None,  # transformers 4
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        "vocab_size": config.vocabulary_size,
    }


def write_activation(config: ModelConfig) -> str:
    """What config.json calls the activation."""
    return next(name for name, activation in ACTIVATIONS.items() if activation == config.activation)


def read_shared_rope(read: ConfigReader) -> RopeConfig:
    """One rotary embedding for all layers, as transformers 4 or 5 writes it; the older spelling has precedence."""
    section = "rope_scaling" if read.get("rope_scaling") else "rope_parameters"
    parameters = read.get(section) or {}
    read.refuse_unless("partial_rotary_factor", None, 1)
    # beside the section, transformers would prefer it to the one inside
    original = "original_max_position_embeddings"
    read.refuse_unless(original, None, parameters.get(original))
    theta, max_positions = read.number("rope_theta"), read.whole("max_position_embeddings")
    return read_rope(parameters, section=section, theta=theta, max_positions=max_positions)


def read_biases(read: ConfigReader) -> dict[str, Any]:
    """`attention_bias` stands for all four projections of attention."""
    bias = read.flag("attention_bias")
    return {"query_key_value_bias": bias, "output_bias": bias}


def rotary_weights(config: ModelConfig) -> tuple[Weight, ...]:
    """The weight table: names are alike in these families, and which of them there are follows from the switches."""
    layer = "model.layers.{layer}."
    bias, mlp_bias = config.query_key_value_bias, config.mlp_bias
    query, key = ("HD", "KD") if config.query_key_norm == "projection" else ("D", "D")
    rows = [vocabulary_row("embedding", "model.embed_tokens")]
    for ours, theirs in _NORMS[config.norm_placement].items():
        rows += norm_rows(f"layers.{ours}", layer + theirs)
    rows += linear_rows("layers.attention.query", layer + "self_attn.q_proj", "M", "HD", bias=bias)
    rows += linear_rows("layers.attention.key", layer + "self_attn.k_proj", "M", "KD", bias=bias)
    rows += linear_rows("layers.attention.value", layer + "self_attn.v_proj", "M", "KD", bias=bias)
    rows += linear_rows("layers.attention.output", layer + "self_attn.o_proj", "HD", "M", bias=config.output_bias)
    if config.query_key_norm != "none":
        rows += norm_rows("layers.attention.query_norm", layer + "self_attn.q_norm", query)
        rows += norm_rows("layers.attention.key_norm", layer + "self_attn.k_norm", key)
    rows += linear_rows("layers.mlp.gate", layer + "mlp.gate_proj", "M", "F", bias=mlp_bias)
    rows += linear_rows("layers.mlp.up", layer + "mlp.up_proj", "M", "F", bias=mlp_bias)
    rows += linear_rows("layers.mlp.down", layer + "mlp.down_proj", "F", "M", bias=mlp_bias)
    rows += norm_rows("final_norm", "model.norm")
    return tuple(rows) if config.tie_embeddings else (*rows, vocabulary_row("head", "lm_head"))
