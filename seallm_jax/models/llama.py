"""The Llama family as Hugging Face writes it: config.json and the names and shapes of the weights. No I/O here.

`WEIGHTS` is one table, used in both directions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.vocabulary import Vocabulary

ARCHITECTURE = "LlamaForCausalLM"
MODEL_TYPE = "llama"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One parameter here and the tensor or tensors that hold it in a checkpoint.

    Letters: V vocabulary (logical size), M hidden, F intermediate, H query heads, K key/value heads, D head size.

    Attributes:
      path: dotted name in the model; a path below `layers.` is stacked, one tensor for each layer.
      name: name in a checkpoint, with `{layer}` for the layer's number.
      theirs: dimensions of the checkpoint's tensor; letters in one string are one merged dimension.
      ours: dimensions of the parameter, without the stacking axis.
    """

    path: str
    name: str
    theirs: tuple[str, ...]
    ours: str

    @property
    def stacked(self) -> bool:
        """Whether each layer has a tensor of its own."""
        return "{layer}" in self.name

    def names(self, config: ModelConfig) -> list[str]:
        """Names in a checkpoint, by layer for a stacked parameter."""
        return [self.name.format(layer=layer) for layer in range(config.num_layers)] if self.stacked else [self.name]

    def checkpoint_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Shape of one of its tensors in a checkpoint."""
        sizes = _sizes(config)
        return tuple(math.prod(sizes[letter] for letter in merged) for merged in self.theirs)

    def from_checkpoint(self, tensor: np.ndarray, config: ModelConfig) -> np.ndarray:
        """A checkpoint's tensor as the parameter (of one layer) holds it, vocabulary rows not padded."""
        sizes, letters = _sizes(config), "".join(self.theirs)
        split = tensor.reshape([sizes[letter] for letter in letters])
        return split.transpose([letters.index(letter) for letter in self.ours])

    def to_checkpoint(self, parameter: np.ndarray, config: ModelConfig) -> np.ndarray:
        """The inverse of `from_checkpoint`. Padded vocabulary rows are cut off."""
        if self.ours.startswith("V"):
            parameter = parameter[: config.vocabulary_size]
        letters = "".join(self.theirs)
        split = parameter.transpose([self.ours.index(letter) for letter in letters])
        return split.reshape(self.checkpoint_shape(config))


WEIGHTS = (
    Weight("embedding.kernel", "model.embed_tokens.weight", ("V", "M"), "VM"),
    Weight("layers.attention_norm.scale", "model.layers.{layer}.input_layernorm.weight", ("M",), "M"),
    Weight("layers.attention.query.kernel", "model.layers.{layer}.self_attn.q_proj.weight", ("HD", "M"), "MHD"),
    Weight("layers.attention.key.kernel", "model.layers.{layer}.self_attn.k_proj.weight", ("KD", "M"), "MKD"),
    Weight("layers.attention.value.kernel", "model.layers.{layer}.self_attn.v_proj.weight", ("KD", "M"), "MKD"),
    Weight("layers.attention.output.kernel", "model.layers.{layer}.self_attn.o_proj.weight", ("M", "HD"), "HDM"),
    Weight("layers.mlp_norm.scale", "model.layers.{layer}.post_attention_layernorm.weight", ("M",), "M"),
    Weight("layers.mlp.gate.kernel", "model.layers.{layer}.mlp.gate_proj.weight", ("F", "M"), "MF"),
    Weight("layers.mlp.up.kernel", "model.layers.{layer}.mlp.up_proj.weight", ("F", "M"), "MF"),
    Weight("layers.mlp.down.kernel", "model.layers.{layer}.mlp.down_proj.weight", ("M", "F"), "FM"),
    Weight("final_norm.scale", "model.norm.weight", ("M",), "M"),
    Weight("head.kernel", "lm_head.weight", ("V", "M"), "VM"),
)


def weights(config: ModelConfig) -> tuple[Weight, ...]:
    """The rows of `WEIGHTS` that a model has: tied embeddings leave out the head."""
    return tuple(weight for weight in WEIGHTS if not (config.tie_embeddings and weight.path == "head.kernel"))


def config_from_huggingface(values: Mapping[str, Any], *, tensor: int = 1) -> ModelConfig:
    """Reads a config.json, as transformers 4 or 5 writes it. `tensor` is the mesh axis that splits the vocabulary.

    Raises:
      SeallmError: a model this decoder would compute differently, or a missing key; with key and value.
    """
    _refuse(values, "model_type", MODEL_TYPE, required=True)
    for key, supported in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        _refuse(values, key, supported)
    _refuse(values, "quantization_config", None)
    rope = {"rope_theta": values.get("rope_theta") or 10000.0}
    for section in ("rope_scaling", "rope_parameters"):  # transformers 4 and 5
        parameters = values.get(section) or {}
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind != "default":
            raise SeallmError(f"config.json: {section} is {parameters!r}; only default rotary positions are supported")
        rope.update(parameters)
    _refuse(dict(values) | rope, "partial_rotary_factor", 1.0)

    def required(key: str) -> int:
        if not isinstance(values.get(key), int):
            raise SeallmError(f"config.json: {key} is {values.get(key)!r}; a whole number is needed")
        return values[key]

    def optional(key: str, default: Any) -> Any:
        return default if values.get(key) is None else values[key]

    heads, hidden = required("num_attention_heads"), required("hidden_size")
    try:
        return ModelConfig(
            family="llama",
            vocabulary_size=required("vocab_size"),
            padded_vocabulary_size=Vocabulary.padded(required("vocab_size"), tensor=tensor).padded_size,
            hidden_size=hidden,
            intermediate_size=required("intermediate_size"),
            num_layers=required("num_hidden_layers"),
            num_heads=heads,
            num_key_value_heads=optional("num_key_value_heads", heads),
            head_size=optional("head_dim", hidden // heads),
            rope_theta=float(rope["rope_theta"]),
            norm_epsilon=float(optional("rms_norm_eps", 1e-6)),
            tie_embeddings=bool(optional("tie_word_embeddings", False)),
            max_positions=optional("max_position_embeddings", 2048),
            initializer_range=float(optional("initializer_range", 0.02)),
        )
    except ValueError as error:
        raise SeallmError(f"config.json: {error}") from None


def config_to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """A config.json that transformers 4 and 5 read alike, without token ids and dtype; the vocabulary is not padded."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "mlp_bias": False,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,  # transformers 4
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},  # transformers 5
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        "vocab_size": config.vocabulary_size,
    }


def _sizes(config: ModelConfig) -> dict[str, int]:
    return {
        "V": config.vocabulary_size,
        "M": config.hidden_size,
        "F": config.intermediate_size,
        "H": config.num_heads,
        "K": config.num_key_value_heads,
        "D": config.head_size,
    }


def _refuse(values: Mapping[str, Any], key: str, supported: Any, *, required: bool = False) -> None:
    found = values.get(key, None if required else supported)
    if found != supported:
        raise SeallmError(f"config.json: {key} is {found!r}; only {supported!r} is supported")
