"""`seallm convert`: between Hugging Face models and checkpoint directories."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.base import CARRIED
from seallm_jax.cli.base_tokenizer import load_base_tokenizer
from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import MODEL_STAGES, StageModel, stage_model
from seallm_jax.core.config import build
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.model_config import stored_model
from seallm_jax.core.paths import RUN_STAGE_DIRECTORIES, RunDirectory, atomic_directory, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import MeshConfig, ModelConfig, RunConfig

CHECKPOINTS, TOKENIZER = "checkpoints", "tokenizer"
DTYPES = ("float32", "bfloat16", "float16")


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "convert",
        help="convert between Hugging Face folders and checkpoint directories",
        description="What the source is decides the direction. A Hugging Face folder, or a name on the Hub, becomes a "
        "directory with checkpoints/ and tokenizer/ that every command here reads. A run directory (its last finished "
        "stage), the directory of a stage, or what this command wrote before, becomes a Hugging Face folder. The "
        "output appears whole or not at all.",
        example="seallm convert --source=meta-llama/Llama-3.2-1B --output=llama --verify",
    )
    parser.add_argument("--source", required=True, metavar="DIR_OR_HUB_ID", help="folder, or owner/name[@revision]")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write; must be new or empty")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the exported tensors (default: that of the base model, else float32)"
    )
    parser.add_argument("--shard-bytes", type=int, metavar="N", help="largest exported file (default: 2000000000)")
    parser.add_argument(
        "--verify", action="store_true", help="compare logits and greedy tokens with transformers; needs torch"
    )
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.cli.parity import require_torch

    output = pathlib.Path(options.output).expanduser()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SeallmError(f"{output} exists and is not empty; give --output a new directory")
    if options.verify:
        require_torch()
    checkpoint = find_checkpoint(pathlib.Path(options.source).expanduser())
    if checkpoint is None:
        if options.dtype not in (None, "float32") or options.shard_bytes is not None:
            raise UsageError(
                f"{options.source} is no checkpoint directory, so it is imported, always as float32; --dtype and "
                "--shard-bytes are for exports"
            )
        result = _import(options.source, output, verify=options.verify)
    else:
        result = _export(checkpoint, output, options)
    parity = result.get("parity")
    if parity is not None and not parity["passed"]:
        if options.json:
            write_json(options.json, result)
        raise SeallmError(f"{output} was written, but does not agree with transformers: see the table above")
    return result


def find_checkpoint(path: pathlib.Path) -> StageModel | None:
    """The model in a run directory (its last finished stage), a stage's directory, or its `checkpoints`; else None.

    Raises:
      SeallmError: a damaged checkpoint, or one without its tokenizer.
    """
    from seallm_jax.training.checkpoint import read_checkpoint_metadata

    if path.name == CHECKPOINTS and path.is_dir():
        path = path.absolute().parent
    for stage in reversed(MODEL_STAGES):
        if _is_stage(path / RUN_STAGE_DIRECTORIES[stage], stage):
            return _of_run(path, stage)
    if not (path / CHECKPOINTS).is_dir():
        return None
    for stage in MODEL_STAGES:
        if path.name == RUN_STAGE_DIRECTORIES[stage] and _is_stage(path, stage):
            return _of_run(path.absolute().parent, stage)
    identity = read_checkpoint_metadata(path / CHECKPOINTS)["identity"]
    shape = build(ModelConfig, stored_model(identity["model"]), f"{path}: model")
    return StageModel(path.name, shape, _find_tokenizer(path, identity["tokenizer_digest"]), path / CHECKPOINTS)


def _is_stage(directory: pathlib.Path, stage: str) -> bool:
    if not (directory / CHECKPOINTS).is_dir():
        return False
    manifest = Manifest.read(directory)
    return manifest is not None and manifest.stage == stage


def _of_run(run: pathlib.Path, stage: str) -> StageModel:
    return stage_model(Context(RunConfig(), RunDirectory(run), Progress.silent(), f"--workdir={run}"), stage)


def _find_tokenizer(directory: pathlib.Path, digest: str) -> pathlib.Path:
    """The folder of the tokenizer that the checkpoint was made with."""
    from seallm_jax.interop.tokenizer_files import is_complete
    from seallm_jax.tokenization.tokenizer import Tokenizer

    places = (directory / TOKENIZER, directory)
    for place in places:
        if is_complete(place) and Tokenizer.load(place).digest == digest:
            return place
    raise SeallmError(
        f"no tokenizer of {directory / CHECKPOINTS} (digest {digest[:12]}) in {', '.join(map(str, places))}; put it "
        f"into {places[0]}"
    )


def _import(source: str, output: pathlib.Path, *, verify: bool) -> dict[str, Any]:
    from seallm_jax.core.mesh import build_mesh
    from seallm_jax.interop.huggingface import ModelFiles, import_model, model_folder
    from seallm_jax.interop.tokenizer_files import copy_tokenizer, is_complete
    from seallm_jax.tokenization.tokenizer import Tokenizer
    from seallm_jax.training.checkpoint import save_parameters

    folder = model_folder(source)
    files = ModelFiles(folder)
    shape = files.shape()
    tokenizer = load_base_tokenizer(folder, shape)
    mesh = build_mesh(MeshConfig())
    imported = import_model(folder, mesh=mesh, progress=Progress())
    with atomic_directory(output) as temporary:
        if is_complete(folder):  # as published, byte for byte
            (temporary / TOKENIZER).mkdir()
            copy_tokenizer(folder, temporary / TOKENIZER)
        else:
            tokenizer.save(temporary / TOKENIZER)
        files.copy_to(temporary / CARRIED)
        digest = Tokenizer.load(temporary / TOKENIZER).digest
        save_parameters(temporary / CHECKPOINTS, imported.parameters, imported.config, tokenizer_digest=digest)
    count = _count(imported.parameters, imported.config)
    print(f"{output}: checkpoint of {count:,} parameters, {shape.family}, {shape.vocabulary_size:,} tokens")
    result: dict[str, Any] = {
        "direction": "import",
        "source": str(source),
        "output": str(output),
        "family": shape.family,
        "parameters": count,
        "vocabulary": shape.vocabulary_size,
    }
    if verify:
        del imported
        written = find_checkpoint(output)
        assert written is not None
        result["parity"] = _verify(folder, written.load(mesh), written)
    return result


def _export(model: StageModel, output: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.core.mesh import build_mesh
    from seallm_jax.interop.huggingface import export_model
    from seallm_jax.interop.model_card import ModelCard

    stage = model.checkpoints.parent
    carried = next((path for path in (stage / CARRIED, stage.parent / "base" / CARRIED) if path.is_dir()), None)
    config, graph, parameters = model.load_parameters(build_mesh(MeshConfig()))
    more = {} if options.shard_bytes is None else {"shard_bytes": options.shard_bytes}
    summary = export_model(
        parameters,
        config,
        model.tokenizer,
        output,
        dtype=options.dtype,
        card=ModelCard(name=output.name),
        base_directory=carried,
        progress=Progress(),
        **more,
    )
    print(f"{output}: {summary.parameters:,} parameters, {summary.dtype}, {summary.bytes / 1e6:,.1f} MB")
    result = {"direction": "export", "source": str(options.source)} | dataclasses.asdict(summary)
    result |= {"output": str(output), "family": config.family}
    del result["path"]
    if options.verify:
        import jax
        from flax import nnx

        # what transformers reads has been rounded
        rounded = jax.tree.map(lambda leaf: leaf.astype(summary.dtype).astype(leaf.dtype), parameters)
        result["parity"] = _verify(output, nnx.merge(graph, rounded), model)
    return result


def _verify(folder: pathlib.Path, decoder: Any, model: StageModel) -> dict[str, Any]:
    from seallm_jax.cli.parity import measure_parity, show

    with Progress().task("comparing with transformers") as advance:
        report = measure_parity(folder, decoder, model.load_tokenizer())
        advance(1)
    show(report)
    return dataclasses.asdict(report)


def _count(parameters: Any, config: ModelConfig) -> int:
    import math

    from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors

    return sum(math.prod(tensor.shape) for tensor in checkpoint_tensors(config))
