"""A Hugging Face folder made from the tensors of other folders, one tensor in memory at a time."""

from __future__ import annotations

import math
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.checkpoint_tensor import CheckpointTensor, checkpoint_tensors
from seallm_jax.interop.export_model import SHARD_BYTES, ExportSummary
from seallm_jax.interop.finite import is_finite
from seallm_jax.interop.model_card import ModelCard
from seallm_jax.interop.model_files import CONFIG, GENERATION_CONFIG, ModelFiles
from seallm_jax.interop.tensor_files import DTYPES
from seallm_jax.interop.tensor_writer import TensorSpec, TensorWriter
from seallm_jax.interop.tokenizer_files import copy_tokenizer
from seallm_jax.models.families.registry import family_named

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_derived_model(
    base: ModelFiles,
    config: ModelConfig,
    tensor: Callable[[CheckpointTensor], np.ndarray],
    output: str | pathlib.Path,
    *,
    dtype: str | None = None,
    card: ModelCard = ModelCard(),
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> ExportSummary:
    """Writes a model whose tensors are computed; tokenizer, token ids and generation config are those of the base.

    Args:
      base: the folder of the base model.
      config: the new model's shape.
      tensor: gives each tensor of the new model in the checkpoint's layout, in any float dtype.
      output: the folder; what was there before is replaced once the new one is whole.
      dtype: float32, bfloat16 or float16; None is that of the base, or float32.
      card: README.md.
      shard_bytes: largest size of a file.
      progress: counts tensors.

    Raises:
      SeallmError: an unknown dtype, a shape that the family does not have, values that are not finite in `dtype`, a
        full disk.
    """
    output = pathlib.Path(output)
    name = dtype or base.dtype or "float32"
    if name not in DTYPES:
        raise SeallmError(f"dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
    stored = DTYPES[name]
    ids = {key: base.config[key] for key in TOKEN_IDS if base.config.get(key) is not None}
    types = {"dtype": name, "torch_dtype": name}  # the names of transformers 5 and 4
    values = family_named(config.family).config_to_huggingface(config) | ids | types
    tensors = checkpoint_tensors(config)
    specs = [TensorSpec(each.name, each.shape) for each in tensors]
    count = sum(math.prod(spec.shape) for spec in specs)
    with (
        atomic_directory(output) as folder,
        (progress or Progress.silent()).task(f"writing {output.name}", total=len(specs)) as advance,
    ):
        writer = TensorWriter(folder, specs, dtype=stored, shard_bytes=shard_bytes)
        for each in tensors:
            with np.errstate(over="ignore"):  # told below, with the tensor's name
                array = np.ascontiguousarray(tensor(each).astype(stored))
            if not is_finite(array):
                raise SeallmError(f"tensor {each.name} holds values that are not finite in {name}; use bfloat16")
            writer.write(each.name, array)
            advance(1, each.name)
        writer.finish()
        copy_tokenizer(base.directory, folder)
        write_json(folder / CONFIG, values)
        if (base.directory / GENERATION_CONFIG).is_file():
            shutil.copyfile(base.directory / GENERATION_CONFIG, folder / GENERATION_CONFIG)
        facts = {"parameters": count, "dtype": name, "vocabulary": config.vocabulary_size, "layers": config.num_layers}
        (folder / "README.md").write_text(card.render(facts), encoding="utf-8")
    return ExportSummary(
        output, tuple(writer.files), len(specs), count, count * stored.itemsize, name, config.vocabulary_size
    )
