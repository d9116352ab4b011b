"""Random models of every family: what a config.json may hold, drawn by hypothesis, and small models of transformers.

Each test draws a few; `pytest tests/parity --hypothesis-profile=thorough` draws many.
"""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from seallm_jax.models.families.registry import FAMILIES

VOCABULARY = 150
LONGEST = 48  # positions; windows and the lengths that models were "trained on" are shorter
TOLERANCE = 1e-5  # largest difference, relative to the largest value

settings.register_profile("thorough", max_examples=1000)


def few(examples: int) -> settings:
    """That many examples, always the same; under the thorough profile four times as many, others each time."""
    thorough = settings.default.max_examples >= 1000
    return settings(
        max_examples=examples * (4 if thorough else 1),
        derandomize=not thorough,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),  # each example compiles: nothing is shrunk
        suppress_health_check=list(HealthCheck),
    )


def config_values(family: str) -> st.SearchStrategy[dict[str, Any]]:
    """The keys of a config.json, as transformers 5 writes them, for a small model of this family."""
    return {"bloom": bloom_values}.get(family, rotary_values)(family)


@st.composite
def bloom_values(draw, family: str) -> dict[str, Any]:
    heads = draw(st.integers(1, 7))  # ALiBi has a rule of its own for what is no power of two
    return {
        "model_type": "bloom",
        "vocab_size": VOCABULARY,
        "hidden_size": heads * draw(st.sampled_from([4, 6, 7])),
        "n_layer": draw(st.integers(2, 4)),
        "n_head": heads,
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
        "initializer_range": 0.2,
    }


@st.composite
def rotary_values(draw, family: str) -> dict[str, Any]:
    key_value_heads, groups = draw(st.sampled_from([(2, 2), (1, 3), (3, 1), (2, 1), (1, 2), (1, 1), (2, 3)]))
    heads, head_size = key_value_heads * groups, draw(st.sampled_from([8, 6, 4, 10]))
    layers = draw(st.integers(2, 4))
    values = {
        "model_type": FAMILIES[family].model_type,
        "vocab_size": VOCABULARY,
        "hidden_size": heads * draw(st.sampled_from([4, 6] if heads > 3 else [8, 10, 12])),
        "intermediate_size": draw(st.integers(10, 50)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": head_size,
        "max_position_embeddings": draw(st.sampled_from([24, 32, 40])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
        "initializer_range": 0.2,
    }
    positions = values["max_position_embeddings"]
    activation = draw(st.sampled_from(["silu", "gelu_pytorch_tanh", "gelu"]))
    window = draw(st.integers(1, 12))
    kinds = st.sampled_from(["sliding_attention", "full_attention"])
    layer_types = draw(st.none() | st.lists(kinds, min_size=layers, max_size=layers))
    rope = rope_values(positions)
    values["rope_parameters"] = draw(rope)
    match family:
        case "mistral":
            values |= {"hidden_act": activation, "sliding_window": draw(st.sampled_from([window, None]))}
        case "qwen2" | "qwen3":
            windows = draw(st.sampled_from([True, True, False]))
            values |= {"hidden_act": activation, "use_sliding_window": windows, "sliding_window": window}
            values |= {
                "max_window_layers": draw(st.integers(0, layers)),
                "layer_types": layer_types if windows else None,
            }
        case "gemma":
            values |= {"hidden_act": draw(st.sampled_from(["gelu_pytorch_tanh", "gelu"]))}
        case "gemma2" | "gemma3":
            values |= {"hidden_activation": activation, "sliding_window": window, "layer_types": layer_types}
            values["query_pre_attn_scalar"] = draw(st.sampled_from([4, 16, 36]))
            values["final_logit_softcapping"] = draw(st.sampled_from([5.0, 30.0, None]))
            if family == "gemma2":
                values["attn_logit_softcapping"] = draw(st.sampled_from([1.0, 8.0, None]))
            else:
                values["sliding_window_pattern"] = draw(st.integers(1, layers + 1))
                everywhere = {key: value for key, value in values["rope_parameters"].items() if key != "truncate"}
                local = {"rope_type": "default", "rope_theta": draw(st.sampled_from([50.0, 1000.0]))}
                values["rope_parameters"] = {"full_attention": everywhere, "sliding_attention": local}
        case _:
            values |= {"hidden_act": activation}
    if family in ("llama", "qwen3", "gemma", "gemma2", "gemma3", "olmo2"):
        values["attention_bias"] = draw(st.booleans())
    if family == "llama":
        values["mlp_bias"] = draw(st.booleans())
    return values


@st.composite
def rope_values(draw, max_positions: int) -> dict[str, Any]:
    """`rope_parameters` that matter for texts of a few dozen tokens."""
    kind = draw(st.sampled_from(["yarn", "llama3", "dynamic", "linear", "default"]))
    values: dict[str, Any] = {"rope_type": kind, "rope_theta": draw(st.sampled_from([1e4, 5e5, 200.0]))}
    if kind != "default":
        values["factor"] = draw(st.sampled_from([4.0, 8.0, 2.5]))
    original = draw(st.sampled_from([16, 8, max_positions]))
    if kind == "llama3":
        values |= {"original_max_position_embeddings": original, "low_freq_factor": 1.0}
        values["high_freq_factor"] = draw(st.sampled_from([4.0, 2.0]))
    if kind == "yarn":
        values |= {"original_max_position_embeddings": original, "truncate": draw(st.booleans())}
        values |= draw(st.sampled_from([{}, {"attention_factor": 1.3}, {"mscale": 0.7, "mscale_all_dim": 1.2}]))
        values |= draw(st.sampled_from([{"beta_fast": 4.0, "beta_slow": 0.5}, {}]))
    return values


def older_spelling(values: dict[str, Any]) -> dict[str, Any]:
    """The same model as transformers 4 wrote it, as far as it could."""
    values = dict(values)
    if values["model_type"] == "bloom":
        return values | {"num_attention_heads": values.pop("n_head"), "n_embed": values.pop("hidden_size")}
    rope = dict(values.pop("rope_parameters"))
    if "full_attention" in rope:
        values["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = dict(rope["full_attention"])
    else:
        rope["type"] = rope.pop("rope_type")
    values["rope_theta"] = rope.pop("rope_theta")
    values["rope_scaling"] = None if "default" in rope.values() else rope
    return values | {"torch_dtype": "bfloat16"}


def torch_model(family: str, values: dict[str, Any], seed: int = 0):
    """A model of transformers in which every parameter matters: nothing is left at one or zero."""
    import torch
    import transformers

    torch.manual_seed(seed)
    architecture = getattr(transformers, FAMILIES[family].architecture)
    nothing_special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = architecture.config_class(**values, **nothing_special, attn_implementation="eager")
    model = architecture(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases
                parameter += 0.3 * torch.randn_like(parameter)
    return model


@contextlib.contextmanager
def in_double(model):
    """The model in float64, with what transformers computes in float32 whatever the model's dtype: an oracle whose own
    rounding does not count.
    """
    import torch

    names = {torch: {"float32": torch.float64, "float": torch.float64}, torch.Tensor: {"float": torch.Tensor.double}}
    model.double()
    with contextlib.ExitStack() as stack:
        for owner, replacements in names.items():
            stack.enter_context(mock.patch.multiple(owner, **replacements))
        yield model
    model.float()
