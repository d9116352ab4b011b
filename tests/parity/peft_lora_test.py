"""Adapters against PEFT: the same logits and gradients, and each reads what the other writes."""

from __future__ import annotations

import copy
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.interop.adapter_module import adapter_modules
from seallm_jax.interop.adapters import load_adapter, save_adapter
from seallm_jax.models.adapters.parameters import adapt_parameters, by_path, merge_adapter, replace_parameters
from seallm_jax.models.layout import abstract_decoder

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

VOCABULARY = 150
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 12))
IDS[0, :4] = VOCABULARY - 1 - np.arange(4)  # new rows among them
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,
}
BASES = {
    "llama": ("llama", SMALL | {"model_type": "llama", "tie_word_embeddings": False}),
    "gemma": ("gemma", SMALL | {"model_type": "gemma", "tie_word_embeddings": True}),  # scaled and tied embeddings
    "bloom": (
        "bloom",
        {
            "model_type": "bloom",
            "vocab_size": VOCABULARY,
            "hidden_size": 24,
            "n_layer": 2,
            "n_head": 4,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
        },
    ),
}
NEW = list(range(140, VOCABULARY))
EVERY_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name: (base, what PEFT is asked for)
THEIRS = {
    "everything, rank stabilized": (
        "llama",
        {"target_modules": [*EVERY_LINEAR, "embed_tokens", "lm_head"], "r": 3, "lora_alpha": 5, "use_rslora": True},
    ),
    "ranks by pattern": (
        "llama",
        {
            "target_modules": r".*(q_proj|o_proj|layers\.1\.mlp\.up_proj)",
            "r": 4,
            "lora_alpha": 8,
            "rank_pattern": {"o_proj": 2, "layers.1.self_attn.q_proj": 6},
            "alpha_pattern": {"up_proj": 3},
        },
    ),
    "new rows": (
        "llama",
        {"target_modules": ["q_proj", "v_proj"], "trainable_token_indices": {"embed_tokens": NEW, "lm_head": NEW}},
    ),
    "some rows, a whole matrix": (
        "llama",
        {
            "target_modules": ["q_proj", "v_proj"],
            "trainable_token_indices": [3, 149, 7],
            "modules_to_save": ["lm_head"],
        },
    ),
    "tied": ("gemma", {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True, "r": 4}),
    "tied, new rows": ("gemma", {"target_modules": ["down_proj"], "trainable_token_indices": NEW, "r": 4}),
    "fused": (
        "bloom",
        {"target_modules": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], "r": 4, "lora_alpha": 6},
    ),
}
# imported with one rank and scale for all, or rows put into the frozen matrix: the same function of other parameters
REPARAMETRIZED = ("ranks by pattern", "some rows, a whole matrix")
# name: (base, our adapter)
OURS = {
    "everything": ("llama", AdapterConfig(rank=3, alpha=5.0, targets=("*",), rank_stabilized=True)),
    "new rows": ("llama", AdapterConfig(targets=("o_proj",), train_new_rows=True, first_new_row=140)),
    "tied": ("gemma", AdapterConfig(targets=("embedding", "gate"), rank=4)),
    "fused in part": (
        "bloom",
        AdapterConfig(rank=4, targets=("query", "value", "dense", "embedding"), rank_stabilized=True),
    ),
}


@pytest.fixture(scope="module")
def bases(make_twins):
    return {name: make_twins(*values) for name, values in BASES.items()}


def their_model(theirs, **options):
    """PEFT's model with every adapter parameter drawn at random."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(copy.deepcopy(theirs), peft.LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def their_logits(model) -> np.ndarray:
    return model(torch.tensor(IDS), use_cache=False).logits.detach().numpy()


@functools.cache
def compiled(config, adapter, kind):
    """From (parameters to differentiate, other parameters) to logits, or to (logits, gradients of the loss)."""
    graph, abstract = abstract_decoder(config, adapter=adapter)
    ids, positions = jnp.asarray(IDS), jnp.broadcast_to(jnp.arange(IDS.shape[1]), IDS.shape)

    def loss(trained, others):
        values = others | trained
        leaves = [values[path] for path in by_path(abstract)]
        model = nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(abstract), leaves))
        logits = model.logits(model(ids, positions, jnp.ones_like(ids), compute_dtype=jnp.float32))[..., :VOCABULARY]
        log_probability = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_probability, jnp.roll(ids, -1, axis=1)[..., None], axis=-1).sum(), logits

    options = {"xla_backend_optimization_level": 0}  # compiles faster
    if kind == "logits":
        return jax.jit(lambda parameters: loss({}, parameters)[1], compiler_options=options)
    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=options)


def our_logits(parameters, config, adapter) -> np.ndarray:
    return np.asarray(compiled(config, adapter, "logits")(by_path(parameters)))


def assert_close(found, expected, name=""):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= 1e-5, f"{name}: {error}"


@pytest.mark.parametrize("case", THEIRS)
def test_what_peft_saves_computes_the_same_here(case, bases, tmp_path):
    base, options = THEIRS[case]
    theirs, ours = bases[base].theirs, bases[base].ours
    model = their_model(theirs, **options)
    model.save_pretrained(tmp_path)
    logits = model(torch.tensor(IDS), use_cache=False).logits
    targets = torch.tensor(np.roll(IDS, -1, axis=1))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
    assert np.abs(logits.detach() - their_logits(theirs)).max() > 1e-2 * np.abs(logits.detach()).max()

    imported = load_adapter(tmp_path, ours.config)
    parameters = imported.put_on(nnx.state(ours), ours.config)
    trained = {path: value for path, value in by_path(parameters).items() if path in imported.values}
    run = compiled(ours.config, imported.adapter, "gradients")
    (_, found), gradients = run(trained, by_path(parameters))
    assert_close(found, logits.detach().numpy())
    expected = {name.replace(".default", ""): p.grad.numpy() for name, p in model.named_parameters() if p.requires_grad}
    if "ensure_weight_tying" in options:  # PEFT has two parameters with the same numbers, each with half the gradient
        for theirs_of, letter in (("A", "B"), ("B", "A")):
            head = expected.pop(f"base_model.model.lm_head.lora_{letter}.weight")
            expected[f"base_model.model.model.embed_tokens.lora_embedding_{theirs_of}"] += head.T
    for name, gradient in expected.items() if case not in REPARAMETRIZED else ():
        found = gradient_of(name, gradients, ours.config)
        assert_close(found[tuple(map(slice, gradient.shape))], gradient, name)

    merged = merge_adapter(parameters, ours.config, imported.adapter)
    assert_close(our_logits(merged, ours.config, None), logits.detach().numpy())


def gradient_of(name, gradients, config) -> np.ndarray:
    """Ours of one of PEFT's parameters."""
    for module in adapter_modules(config):
        for layer, instance in enumerate(module.instances(config)):
            if not name.startswith(f"base_model.model.{instance}."):
                continue
            if "trainable_tokens" in name or "modules_to_save" in name:
                (target,) = module.kernels
                rows = gradients.get(f"{target}.new_rows")
                return np.asarray(gradients[f"{target}.kernel"] if rows is None else rows)
            pairs = {}
            for target in module.kernels:
                if f"{module.owner(target)}.lora_a" in gradients:
                    pair = [np.asarray(gradients[f"{module.owner(target)}.{x}"]) for x in ("lora_a", "lora_b")]
                    pairs[target] = [x[layer] for x in pair] if module.stacked else pair
            if name.endswith(("lora_B.weight", "embedding_B")):
                return module.to_peft(pairs, config)[1]
            return sum(module.to_peft({target: pair}, config)[0] for target, pair in pairs.items())  # A is shared
    raise KeyError(name)


@pytest.mark.parametrize("case", OURS)
def test_what_we_save_computes_the_same_in_peft(case, bases, tmp_path):
    base, adapter = OURS[case]
    theirs, ours = bases[base].theirs, bases[base].ours
    parameters = adapt_parameters(nnx.state(ours), ours.config, adapter, seed=3)
    np.testing.assert_array_equal(
        our_logits(parameters, ours.config, adapter), our_logits(nnx.state(ours), ours.config, None)
    )
    parameters = randomized(parameters)
    save_adapter(parameters, ours.config, adapter, tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(copy.deepcopy(theirs), tmp_path / "adapter").eval()
    expected = our_logits(parameters, ours.config, adapter)
    assert_close(their_logits(model), expected)

    again = load_adapter(tmp_path / "adapter", ours.config)
    assert again.adapter.scale == pytest.approx(adapter.scale, rel=1e-12)
    found = by_path(parameters)
    for path, value in again.values.items():
        np.testing.assert_array_equal(value, found[path][tuple(map(slice, value.shape))], path)
    assert again.values.keys() == {p for p in found if p.endswith(("lora_a", "lora_b", "new_rows"))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, "use_dora is True"),
        ({"target_modules": ["q_proj"], "lora_bias": True, "bias": "lora_only"}, "bias is"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"target_modules": ["embed_tokens"]}, "adapts model.embed_tokens but not lm_head"),
        ({"target_modules": ["lm_head"]}, "but not lm_head in the same way"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]}, "unexpected tensor"),
    ],
)
def test_what_cannot_be_expressed_is_refused(options, message, bases, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        their_model(bases["gemma"].theirs, r=2, **options).save_pretrained(tmp_path)
    with pytest.raises(SeallmError, match=message):
        load_adapter(tmp_path, bases["gemma"].ours.config)


def randomized(parameters):
    rng = np.random.default_rng(0)
    values = {
        path: 0.2 * rng.standard_normal(value.shape).astype(np.float32)
        for path, value in by_path(parameters).items()
        if path.endswith(("lora_a", "lora_b", "new_rows"))
    }
    for path, axis in (("embedding.lora_a", 0), ("head.lora_b", 1)):
        if path in values:
            np.moveaxis(values[path], axis, 0)[VOCABULARY:] = 0
    return replace_parameters(parameters, values)
