"""Adapters in the format of PEFT, written and read: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from seallm_jax.core.adapter_config import AdapterConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, write_json
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.adapter_module import AdapterModule, Factors, adapter_modules
from seallm_jax.interop.adapter_reader import CONFIG_FILE, PREFIX, TENSORS_FILE, AdapterReader
from seallm_jax.interop.tensor_files import DTYPES
from seallm_jax.models.adapters.parameters import adapt_parameters, by_path, replace_parameters
from seallm_jax.models.families.registry import family_named

HEAD = "lm_head"  # in all families
ADAPTER_PARAMETERS = ("lora_a", "lora_b", "new_rows")


@dataclasses.dataclass(frozen=True)
class ImportedAdapter:
    """An adapter in memory.

    Attributes:
      adapter: what it adapts. Modules of several ranks or scales are brought to the largest rank and one scale.
      values: the adapter's parameters by dotted path, and whole parameters that it replaces.
      rows: path of a kernel -> (indices, rows that it replaces).
    """

    adapter: AdapterConfig
    values: Mapping[str, np.ndarray]
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def put_on(self, parameters: Any, config: ModelConfig, *, shardings: Any = None) -> nnx.State:
        """The parameters of the adapted decoder from those of its base; the result shares what stays as it is.

        Args:
          parameters: of the decoder that the adapter was trained on.
          config: its shape.
          shardings: of the result, as for `adapt_parameters`.
        """
        added = {path: value for path, value in self.values.items() if path.endswith(ADAPTER_PARAMETERS)}
        replaced = {path: value for path, value in self.values.items() if path not in added}
        for path, (indices, rows) in self.rows.items():
            kernel = np.array(by_path(parameters)[path] if path not in replaced else replaced[path])
            kernel[indices] = rows
            replaced[path] = kernel
        base = replace_parameters(parameters, replaced)
        return replace_parameters(adapt_parameters(base, config, self.adapter, seed=0, shardings=shardings), added)


def save_adapter(
    parameters: Any,
    config: ModelConfig,
    adapter: AdapterConfig,
    output: str | pathlib.Path,
    *,
    base: str = "",
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes a folder that `peft.PeftModel.from_pretrained` puts on the exported base, whole or not at all.

    A fused module gets the ranks of its parts added up, unless they share their first matrix. The adapter of tied
    embeddings is written for the embedding and for the head, as PEFT needs it.

    Args:
      parameters: of the adapted decoder (or only those of the adapter), on any mesh of this process.
      config: the model's shape.
      adapter: what was trained.
      output: the folder; what was there before is replaced.
      base: `base_model_name_or_path`, a folder or a hub id.
      dtype: float32, bfloat16 or float16.

    Raises:
      SeallmError: an unknown dtype, parameters on other hosts, values that are not finite, a full disk.
    """
    from safetensors.numpy import save_file

    if dtype not in DTYPES:
        raise SeallmError(f"adapter dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
    values = {path: _fetch(leaf) for path, leaf in by_path(parameters).items() if path.endswith(ADAPTER_PARAMETERS)}
    tensors: dict[str, np.ndarray] = {}
    written = _plain_config(adapter, base)
    for module in adapter_modules(config):
        if adapter.train_new_rows and module.kernels.keys() & {"embedding", "head"}:
            (target,) = module.kernels
            tensors[f"{module.name}.token_adapter.trainable_tokens_delta"] = values[f"{target}.new_rows"]
            written["trainable_token_indices"][module.last_name] = list(
                range(adapter.first_new_row, config.vocabulary_size)
            )
        targets = [target for target in module.kernels if target in adapter.names]
        if targets:
            rank = _add_factors(tensors, module, targets, values, config)
            written["target_modules"].append(module.last_name)
            if rank != adapter.rank:
                alpha = adapter.scale * (math.sqrt(rank) if adapter.rank_stabilized else rank)
                written["rank_pattern"][module.last_name] = rank
                written["alpha_pattern"][module.last_name] = alpha
            if module.is_embedding and config.tie_embeddings:
                tensors[f"{HEAD}.lora_A.weight"] = tensors[f"{module.name}.lora_embedding_B"].T
                tensors[f"{HEAD}.lora_B.weight"] = tensors[f"{module.name}.lora_embedding_A"].T
                written["target_modules"].append(HEAD)
                written["ensure_weight_tying"] = True
    written["trainable_token_indices"] = written["trainable_token_indices"] or None
    with atomic_directory(output) as folder, np.errstate(over="ignore"):
        cast = {PREFIX + name: np.ascontiguousarray(tensor.astype(DTYPES[dtype])) for name, tensor in tensors.items()}
        for name, tensor in cast.items():
            if not np.isfinite(tensor.astype(np.float32)).all():
                raise SeallmError(f"adapter tensor {name} holds values that are not finite in {dtype}")
        save_file(cast, folder / TENSORS_FILE, metadata={"format": "pt"})
        write_json(folder / CONFIG_FILE, written)
    return pathlib.Path(output)


def load_adapter(directory: str | pathlib.Path, config: ModelConfig) -> ImportedAdapter:
    """Reads an adapter that PEFT, or `save_adapter`, wrote for a model of this shape.

    Understood are LoRA and rsLoRA of any rank and alpha by module, on the layers' kernels, the embedding and the head;
    `trainable_token_indices`; and `modules_to_save` of embedding, head and final norm.

    Raises:
      SeallmError: files that are missing or damaged, an adapter of another kind or of another model, tensors that are
        missing, unexpected or of the wrong shape, or an adapter on one side of tied embeddings.
    """
    reader = AdapterReader(pathlib.Path(directory), config)
    pairs: dict[str, list[tuple[Factors, float] | None]] = {}  # by path of our module, then by layer
    values: dict[str, np.ndarray] = {}
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for weight in family_named(config.family).weights(config):
        name = weight.name.removesuffix(".weight")
        if not weight.stacked and name != weight.name:
            whole = reader.whole(name, weight.checkpoint_shape(config))
            if weight.path == "embedding.kernel" and config.tie_embeddings:
                _check_tied(reader, name, whole, reader.whole(HEAD, weight.checkpoint_shape(config)))
            if whole is not None:
                values[weight.path] = _pad(weight.from_checkpoint(whole, config), 0, weight.path, config)
            if weight.path in ("embedding.kernel", "head.kernel") and (found := reader.new_rows(name)) is not None:
                rows[weight.path] = found
    for module in adapter_modules(config):
        for layer, name in enumerate(module.instances(config)):
            if (triple := reader.factors(module, name)) is None:
                continue
            matrices, scale = triple[:2], triple[2]
            for target, factors in module.from_peft(*matrices, config).items():
                layers = pairs.setdefault(module.owner(target), [None] * len(module.instances(config)))
                layers[layer] = factors, scale
            if module.is_embedding and config.tie_embeddings:
                for matrix, letter in ((matrices[1], "A"), (matrices[0], "B")):
                    _check_tied(reader, name, matrix.T, reader.take(f"{HEAD}.lora_{letter}.weight", matrix.T.shape))
    reader.finish()
    rank, scale = _add_adapter(values, pairs, config)
    first = _take_tail(values, rows, config)
    alpha = scale * (math.sqrt(rank) if reader.rank_stabilized else rank)
    adapter = AdapterConfig(
        rank=rank,
        alpha=alpha,
        targets=tuple(owner.rpartition(".")[2] for owner in pairs),
        dropout=float(reader.values.get("lora_dropout") or 0.0),
        rank_stabilized=reader.rank_stabilized,
        train_new_rows=first > 0,
        first_new_row=first,
    )
    return ImportedAdapter(adapter, values, rows)


def _plain_config(adapter: AdapterConfig, base: str) -> dict[str, Any]:
    """adapter_config.json before its modules are known."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": adapter.rank,
        "lora_alpha": int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,
        "lora_dropout": adapter.dropout,
        "use_rslora": adapter.rank_stabilized,
        "target_modules": [],
        "rank_pattern": {},
        "alpha_pattern": {},
        "trainable_token_indices": {},
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _add_factors(
    tensors: dict[str, np.ndarray],
    module: AdapterModule,
    targets: list[str],
    values: Mapping[str, np.ndarray],
    config: ModelConfig,
) -> int:
    """Adds the matrices of a module to `tensors`, and returns their rank."""
    form = "{}.lora_embedding_{}" if module.is_embedding else "{}.lora_{}.weight"
    ours = {target: [values[f"{module.owner(target)}.{name}"] for name in ("lora_a", "lora_b")] for target in targets}
    shared = len(targets) == len(module.kernels) and all(
        np.array_equal(a, ours[targets[0]][0]) for a, _ in ours.values()
    )
    for layer, name in enumerate(module.instances(config)):
        factors = {target: (a[layer], b[layer]) if module.stacked else (a, b) for target, (a, b) in ours.items()}
        a_rank_x_in, b_out_x_rank = module.to_peft(factors, config, shared=shared)
        tensors[form.format(name, "A")], tensors[form.format(name, "B")] = a_rank_x_in, b_out_x_rank
    return a_rank_x_in.shape[0]


def _add_adapter(
    values: dict[str, np.ndarray], pairs: Mapping[str, list[tuple[Factors, float] | None]], config: ModelConfig
) -> tuple[int, float]:
    """Adds lora_a and lora_b of all modules to `values`; returns the rank and the scale that they then share.

    Layers and modules without an adapter, or with one of a smaller rank, are filled up with zeros.
    """
    known = [pair for layers in pairs.values() for pair in layers if pair is not None]
    rank = max((a.shape[-1] for (a, _), _ in known), default=1)
    scale = max((scale for _, scale in known), default=1.0)
    for owner, layers in pairs.items():
        (some_a, some_b), _ = next(pair for pair in layers if pair is not None)
        a_LxIxR = np.zeros((len(layers), *some_a.shape[:-1], rank), np.float32)
        b_LxRxO = np.zeros((len(layers), rank, *some_b.shape[1:]), np.float32)
        for layer, pair in enumerate(layers):
            if pair is not None:
                (a, b), own = pair
                a_LxIxR[layer, ..., : a.shape[-1]] = a
                b_LxRxO[layer, : b.shape[0]] = b if own == scale else b * np.float32(own / scale)
        stacked = owner.startswith("layers.")
        values[f"{owner}.lora_a"] = a_LxIxR if stacked else _pad(a_LxIxR[0], 0, owner, config, only="embedding")
        values[f"{owner}.lora_b"] = b_LxRxO if stacked else _pad(b_LxRxO[0], 1, owner, config, only="head")
    return rank, scale


def _take_tail(
    values: dict[str, np.ndarray], rows: dict[str, tuple[np.ndarray, np.ndarray]], config: ModelConfig
) -> int:
    """Moves rows from `rows` to `values` if they are the last of the vocabulary in every matrix. Returns the first."""
    kernels = ["embedding.kernel"] if config.tie_embeddings else ["embedding.kernel", "head.kernel"]
    if sorted(rows) != kernels:
        return 0
    firsts = {int(indices[0]) for indices, _ in rows.values()}
    tail = np.arange(min(firsts), config.vocabulary_size)
    if not min(firsts) > 0 or not all(np.array_equal(indices, tail) for indices, _ in rows.values()):
        return 0
    for path in kernels:
        values[path.replace("kernel", "new_rows")] = rows.pop(path)[1]
    return min(firsts)


def _check_tied(reader: AdapterReader, name: str, ours: np.ndarray | None, on_head: np.ndarray | None) -> None:
    """What an adapter does to a tied embedding it has to do to the head as well, or they would not be tied any more."""
    same = ours is on_head if ours is None or on_head is None else np.array_equal(ours, on_head)
    if not same:
        raise SeallmError(
            f"{reader.directory} adapts {name} but not {HEAD} in the same way, and this model ties them; train it with "
            "PEFT's ensure_weight_tying, or untie the model"
        )


def _pad(array: np.ndarray, axis: int, owner: str, config: ModelConfig, *, only: str = "") -> np.ndarray:
    """With zeros for the rows that pad the vocabulary, if `owner` (and `only`) says that `axis` is the vocabulary."""
    if owner.partition(".")[0] not in ((only,) if only else ("embedding", "head")):
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, config.padded_vocabulary_size - config.vocabulary_size)
    return np.pad(array, widths)


def _fetch(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise SeallmError("parameters lie on other hosts; restore the checkpoint on one host to export it")
    return np.asarray(leaf, np.float32)
