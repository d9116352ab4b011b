"""Hugging Face folders in and out, tensor by tensor, through the weight table of the model family."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, read_json, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import ModelConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.interop.model_card import ModelCard
from seallm_jax.interop.tensor_files import DTYPES, STORED_TYPES, PlannedTensor, TensorFiles, write_tensors
from seallm_jax.interop.tokenizer_files import TokenizerFolder
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import abstract_decoder, logical_axes, path_name
from seallm_jax.models.llama import ARCHITECTURE, Weight, config_from_huggingface, config_to_huggingface, weights


class ImportedModel(NamedTuple):
    """A checkpoint in memory.

    Attributes:
      config: the model's shape.
      parameters: as `nnx.state(Decoder)`, on the mesh.
      tokenizer_path: the folder, where `Tokenizer.load` finds the tokenizer.
    """

    config: ModelConfig
    parameters: nnx.State
    tokenizer_path: pathlib.Path

    def decoder(self) -> Decoder:
        """The model; its parameters are these, not a copy."""
        return nnx.merge(abstract_decoder(self.config)[0], self.parameters)


@dataclasses.dataclass(frozen=True)
class ExportSummary:
    """What was written. `bytes` counts the tensors."""

    path: pathlib.Path
    files: tuple[str, ...]
    tensors: int
    parameters: int
    bytes: int
    dtype: str
    vocabulary: int


def import_model(
    directory: str | pathlib.Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    tensor: int | None = None,
    param_dtype: Any = jnp.float32,
    progress: Progress | None = None,
) -> ImportedModel:
    """Reads a Llama folder into the stacked layout. Each device's share is read from the mapped files on its own.

    All names, shapes and dtypes are checked before memory is spent.

    Args:
      directory: config.json, safetensors files and the tokenizer.
      mesh: where the parameters go, laid out by `rules`; one device without it.
      tensor: the mesh axis that splits the vocabulary, for its padding; that of `mesh` (or 1) when None.
      param_dtype: dtype of the parameters.

    Raises:
      SeallmError: no config.json, an architecture that is not Llama, a pickle instead of safetensors, a damaged file,
        tensors that are missing, unexpected or of the wrong shape.
    """
    directory = pathlib.Path(directory)
    config = read_config(directory, tensor=tensor or (1 if mesh is None else mesh.shape["tensor"]))
    files = TensorFiles(directory)
    check_tensors(files, config)
    _, abstract = abstract_decoder(config, param_dtype=param_dtype)
    table = {weight.path: weight for weight in weights(config)}
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract)
    arrays = []
    with (progress or Progress.silent()).task(f"reading {directory.name}", total=len(leaves)) as advance:
        for path, leaf in leaves:
            name = path_name(path)
            arrays.append(_read_parameter(files, table[name], config, leaf, mesh, rules))
            advance(1, name)
    return ImportedModel(config, jax.tree_util.tree_unflatten(structure, arrays), directory)


def export_model(
    parameters: nnx.State,
    config: ModelConfig,
    tokenizer_directory: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    dtype: str = "float32",
    shard_bytes: int = 2_000_000_000,
    card: ModelCard = ModelCard(),
    base_directory: str | pathlib.Path | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Writes a folder that `AutoModelForCausalLM` and `AutoTokenizer` load, whole or not at all.

    Padded vocabulary rows are left out. One layer's tensor at a time comes to the host.

    Args:
      parameters: `nnx.state(decoder)`, on any mesh of this process.
      config: the model's shape; `vocabulary_size` is what is exported.
      tokenizer_directory: what `Tokenizer.save` wrote; its files are copied.
      output: the folder; what was there before is replaced.
      dtype: float32, bfloat16 or float16.
      shard_bytes: largest size of a file.
      card: README.md.
      base_directory: folder of the base model, whose generation_config.json is taken over.

    Raises:
      SeallmError: an unknown dtype, a tokenizer that is missing or larger than the model, values that are not finite in
        `dtype`, parameters on other hosts, a full disk.
    """
    if dtype not in DTYPES:
        raise SeallmError(f"export dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
    output = pathlib.Path(output)
    tokenizer = TokenizerFolder.read(pathlib.Path(tokenizer_directory))
    if tokenizer.size > config.vocabulary_size:
        raise SeallmError(
            f"tokenizer {tokenizer_directory} has {tokenizer.size} tokens, the model {config.vocabulary_size} rows; "
            "export the model with the tokenizer that it was trained with"
        )
    planned = _plan(parameters, config, DTYPES[dtype])
    count = sum(int(np.prod(tensor.shape)) for tensor in planned)
    with atomic_directory(output) as folder:
        with (progress or Progress.silent()).task(f"writing {output.name}", total=len(planned)) as advance:
            files = write_tensors(
                folder, planned, dtype=DTYPES[dtype], shard_bytes=shard_bytes, advance=lambda n: advance(n)
            )
        summary = ExportSummary(
            output, tuple(files), len(planned), count, count * DTYPES[dtype].itemsize, dtype, config.vocabulary_size
        )
        tokenizer.copy_to(folder)
        special = {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
        # `torch_dtype` is what transformers 4 and vLLM read, `dtype` what transformers 5 writes
        types = {"dtype": dtype, "torch_dtype": dtype}
        write_json(folder / "config.json", config_to_huggingface(config) | special | types)
        write_json(folder / "generation_config.json", _generation_config(tokenizer, base_directory))
        facts = {"parameters": count, "dtype": dtype, "vocabulary": config.vocabulary_size, "layers": config.num_layers}
        (folder / "README.md").write_text(card.render(facts), encoding="utf-8")
    return summary


def read_config(directory: pathlib.Path, *, tensor: int = 1) -> ModelConfig:
    """The shape of the model in a Hugging Face folder. Raises SeallmError for anything but a Llama."""
    if not (directory / "config.json").is_file():
        raise SeallmError(f"{directory} has no config.json; it is not a Hugging Face model folder")
    values = read_json(directory / "config.json")
    if not isinstance(values, dict):
        raise SeallmError(f"{directory / 'config.json'} is not an object")
    architectures = values.get("architectures") or [ARCHITECTURE]
    if ARCHITECTURE not in architectures:
        raise SeallmError(f"{directory} is a {', '.join(architectures)}; only {ARCHITECTURE} is supported")
    try:
        return config_from_huggingface(values, tensor=tensor)
    except SeallmError as error:
        raise SeallmError(f"{directory}: {error}") from error


def check_tensors(files: TensorFiles, config: ModelConfig) -> None:
    """Raises SeallmError for the first tensor that is missing, unexpected, or of a wrong shape or dtype."""
    expected = {name: w.checkpoint_shape(config) for w in weights(config) for name in w.names(config)}
    for name, shape in expected.items():
        if name not in files.tensors:
            raise SeallmError(f"{files.directory} has no tensor {name}; the checkpoint is incomplete")
        found = files.tensors[name]
        if found.shape != shape:
            raise SeallmError(f"tensor {name} in {found.file} has shape {found.shape}; config.json asks for {shape}")
        if found.dtype not in STORED_TYPES:
            raise SeallmError(
                f"tensor {name} in {found.file} is {found.dtype}; only {', '.join(STORED_TYPES)} can be read"
            )
    for name, found in files.tensors.items():
        if name not in expected and not _is_redundant(name, config):
            raise SeallmError(f"unexpected tensor {name} in {found.file}; config.json describes a model without it")


def _is_redundant(name: str, config: ModelConfig) -> bool:
    """Rotary frequencies of old checkpoints, and the head beside an embedding that it is tied to."""
    return name.endswith("rotary_emb.inv_freq") or (config.tie_embeddings and name == "lm_head.weight")


def _read_parameter(
    files: TensorFiles, weight: Weight, config: ModelConfig, leaf: Any, mesh: Any, rules: ShardingRules
) -> jax.Array:
    shape, names = leaf.shape, weight.names(config)

    def tensor(layer: int) -> np.ndarray:
        """A view in our layout; only what is taken from it is read."""
        return weight.from_checkpoint(files.tensor(names[layer]), config)

    def share(index: Any) -> np.ndarray:
        """The part of the parameter that one device holds."""
        bounds = [part.indices(size)[:2] for part, size in zip(index, shape, strict=True)]
        result = np.zeros([stop - start for start, stop in bounds], leaf.dtype)
        if weight.stacked:
            for row, layer in enumerate(range(*bounds[0])):
                result[row] = tensor(layer)[index[1:]]
        else:  # rows beyond the logical vocabulary stay zero
            part = tensor(0)[index]
            result[tuple(slice(0, size) for size in part.shape)] = part
        return result

    if mesh is None:
        return jnp.asarray(share((slice(None),) * len(shape)))
    sharding = rules.sharding(mesh, *logical_axes(weight.path), shape=shape)
    return jax.make_array_from_callback(shape, sharding, share)


def _plan(parameters: nnx.State, config: ModelConfig, dtype: np.dtype) -> list[PlannedTensor]:
    """All tensors in the order of the layers."""
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)}
    planned = []
    for weight in weights(config):
        if weight.path not in leaves:
            raise SeallmError(f"the parameters have no {weight.path}; model.tie_embeddings does not fit them")
        leaf = leaves[weight.path]
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise SeallmError("parameters lie on other hosts; restore the checkpoint on one host to export it")
        for layer, name in enumerate(weight.names(config)):
            read = functools.partial(_fetch, leaf, layer if weight.stacked else None, weight, config, dtype)
            planned.append(PlannedTensor(name, weight.checkpoint_shape(config), read))
    return sorted(planned, key=_file_order)


def _fetch(leaf: Any, layer: int | None, weight: Weight, config: ModelConfig, dtype: np.dtype) -> np.ndarray:
    # cut and cast where the parameter lies, so that only what is written comes to the host
    part = (leaf if layer is None else leaf[layer]).astype(dtype)
    return weight.to_checkpoint(np.asarray(part), config)


def _file_order(tensor: PlannedTensor) -> tuple[int, int]:
    """Embedding, layers in order, final norm, head: a shard then holds whole layers."""
    if "embed_tokens" in tensor.name:
        return 0, 0
    if ".layers." in tensor.name:
        return 1, int(tensor.name.split(".layers.")[1].split(".")[0])
    return 2, 0


def _generation_config(tokenizer: TokenizerFolder, base_directory: str | pathlib.Path | None) -> dict[str, Any]:
    """Of the base model where there is one; stops at the end of a text and at the end of a chat turn."""
    path = pathlib.Path(base_directory) / "generation_config.json" if base_directory else None
    base = read_json(path) if path is not None and path.is_file() else {}
    stops = base.get("eos_token_id", [])
    stops = dict.fromkeys([*tokenizer.stop_ids, *([stops] if isinstance(stops, int) else stops or [])])
    return base | {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(stops),
        "pad_token_id": tokenizer.pad_id,
    }
