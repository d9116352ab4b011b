"""Parameters into a Hugging Face folder, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_directory, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors
from seallm_jax.interop.export_config import generation_values, model_values
from seallm_jax.interop.model_card import ModelCard
from seallm_jax.interop.model_files import CONFIG, GENERATION_CONFIG, ModelFiles
from seallm_jax.interop.parameter_writer import Piece, parameter_pieces, write_parameters
from seallm_jax.interop.tensor_files import DTYPES
from seallm_jax.interop.tensor_writer import TensorSpec, TensorWriter
from seallm_jax.interop.tokenizer_files import TokenizerFolder
from seallm_jax.models.layout import path_name

SHARD_BYTES = 2_000_000_000


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


def export_model(
    parameters: nnx.State,
    config: ModelConfig,
    tokenizer_directory: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    card: ModelCard = ModelCard(),
    base_directory: str | pathlib.Path | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Writes a folder that `AutoModelForCausalLM` and `AutoTokenizer` load.

    Padded vocabulary rows are left out. The host holds a few blocks of tensors at a time. Where parameters are spread
    over processes, all of them call this; process 0 alone reads the tokenizer's and the base's folders and writes.

    Args:
      parameters: `nnx.state(decoder)`, on any mesh.
      config: the model's shape; `vocabulary_size` is what is exported.
      tokenizer_directory: what `Tokenizer.save` wrote, or any folder with tokenizer.json; its files are copied.
      output: the folder; what was there before is replaced once the new one is whole.
      dtype: float32, bfloat16 or float16; None is that of the base, or float32 without one.
      shard_bytes: largest size of a file.
      card: README.md.
      base_directory: folder of the base model (or of what `ModelFiles.copy_to` kept of it), whose token ids and
        generation config are taken over.

    Raises:
      SeallmError: an unknown dtype, a tokenizer that is missing or larger than the model, a shape that the family does
        not have, values that are not finite in `dtype`, a full disk; on other processes that process 0 has failed.
    """
    output = pathlib.Path(output)
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)}
    tensors = checkpoint_tensors(config)
    for path in sorted({row.path for tensor in tensors for row in tensor.rows} ^ leaves.keys()):
        problem = "have no" if path not in leaves else "have a"
        raise SeallmError(f"the parameters {problem} {path}; model.tie_embeddings, or the family, does not fit them")
    leaves = {path: leaf if isinstance(leaf, jax.Array) else jax.numpy.asarray(leaf) for path, leaf in leaves.items()}
    together = _Together(spread=not all(leaf.is_fully_addressable for leaf in leaves.values()))
    with together.step("prepare"):
        plan = _Plan(config, tokenizer_directory, output, dtype, base_directory) if together.writes else None
    written = together.broadcast(list(DTYPES).index(plan.dtype) if plan else 0)
    stored = DTYPES[list(DTYPES)[written]]
    specs = [TensorSpec(tensor.name, tensor.shape) for tensor in tensors]
    count = sum(math.prod(spec.shape) for spec in specs)
    summary = ExportSummary(output, (), len(specs), count, count * stored.itemsize, stored.name, config.vocabulary_size)
    with (progress or Progress.silent()).task(f"writing {output.name}", total=len(specs)) as advance:
        pieces = parameter_pieces(leaves, tensors)
        with together.step("write", collectives=pieces):
            if plan is not None:
                with atomic_directory(output) as folder:
                    writer = TensorWriter(folder, specs, dtype=stored, shard_bytes=shard_bytes)
                    write_parameters(pieces, config, writer, stored, advance=advance)
                    writer.finish()
                    plan.write_files(folder, card, count)
                summary = dataclasses.replace(summary, files=tuple(writer.files))
    return summary


class _Plan:
    """What the writing process checks and prepares before memory and disk are spent."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer_directory: str | pathlib.Path,
        output: pathlib.Path,
        dtype: str | None,
        base_directory: str | pathlib.Path | None,
    ):
        self.config = config
        base = ModelFiles(base_directory) if base_directory is not None else None
        self.dtype = dtype or (base.dtype if base else None) or "float32"
        if self.dtype not in DTYPES:
            raise SeallmError(f"export dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
        self.tokenizer = TokenizerFolder.read(pathlib.Path(tokenizer_directory))
        if self.tokenizer.size > config.vocabulary_size:
            raise SeallmError(
                f"tokenizer {tokenizer_directory} has {self.tokenizer.size} tokens, the model "
                f"{config.vocabulary_size} rows; export the model with the tokenizer that it was trained with"
            )
        self.values = model_values(config, self.tokenizer, base, dtype=self.dtype)
        self.generation = generation_values(self.tokenizer, base)
        _check_space(output, sum(math.prod(t.shape) for t in checkpoint_tensors(config)) * DTYPES[self.dtype].itemsize)

    def write_files(self, folder: pathlib.Path, card: ModelCard, parameters: int) -> None:
        """Writes everything but the tensors."""
        self.tokenizer.copy_to(folder)
        write_json(folder / CONFIG, self.values)
        write_json(folder / GENERATION_CONFIG, self.generation)
        facts = {"parameters": parameters, "dtype": self.dtype, "vocabulary": self.config.vocabulary_size}
        text = card.render(facts | {"layers": self.config.num_layers})
        (folder / "README.md").write_text(text, encoding="utf-8")


class _Together:
    """Keeps the processes of an export in step; one process alone notices nothing of it.

    Attributes:
      writes: whether this process writes.
    """

    def __init__(self, *, spread: bool):
        self._spread = spread
        self.writes = not spread or jax.process_index() == 0

    def broadcast(self, value: int) -> int:
        """Process 0's value."""
        if not self._spread:
            return value
        from jax.experimental import multihost_utils

        return int(multihost_utils.broadcast_one_to_all(np.int32(value)))

    @contextlib.contextmanager
    def step(self, name: str, *, collectives: Iterable[Piece] = ()) -> Iterator[None]:
        """Runs a body whose failure in one process ends it in all of them.

        Args:
          name: for the error.
          collectives: what all processes go through; what the body leaves of it is gone through afterwards.
        """
        if not self._spread:
            yield
            return
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
        for piece in collectives:  # others wait in them, whatever has happened here
            jax.block_until_ready(piece)
        if self.broadcast(0 if problem is None else 1) and problem is None:
            raise SeallmError(f"export: process 0 could not {name} it; its own message says why")
        if problem is not None:
            raise problem


def _check_space(output: pathlib.Path, needed: int) -> None:
    """Refuses to begin what cannot be finished."""
    existing = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise SeallmError(
            f"cannot write {output}: it takes {needed / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f} MB left; free "
            "some space and run it again"
        )
