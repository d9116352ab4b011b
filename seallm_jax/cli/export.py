"""`seallm export`: the trained model as a Hugging Face folder."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_stage_command
from seallm_jax.cli.base import CARRIED
from seallm_jax.cli.context import Context, Stage
from seallm_jax.cli.lineage import StageModel, present_models, stage_model
from seallm_jax.core.config import to_dict
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh

if TYPE_CHECKING:
    import jax

    from seallm_jax.core.schema import TrainConfig


def add_parser(subparsers) -> argparse.ArgumentParser:
    return add_stage_command(
        subparsers,
        STAGE,
        show,
        help="write the trained model as a Hugging Face folder",
        description="Writes safetensors, config, tokenizer, generation config, chat template and model card of "
        "the last training stage. AutoModelForCausalLM and AutoTokenizer load the folder.",
        example="seallm export --config=configs/quickstart.py --workdir=runs/mine --config.export.dtype=bfloat16",
    )


def show(outcome: dict[str, Any]) -> None:
    """Prints where the model is."""
    print(f"exported {outcome['model']} model: {outcome['path']} ({outcome['bytes'] / 1e6:.1f} MB)")


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    from seallm_jax.interop.huggingface import export_model

    last = present_models(context.config)[-1]
    model = stage_model(context, last)
    separate = context.config.export.adapter == "separate"
    if separate and model.adapter is None:
        raise SeallmError(f"config.export.adapter is 'separate', but stage {last!r} trained no adapter; use 'merge'")
    if separate and model.adapter and not set(model.trainable) <= set(model.adapter.parameters):
        raise SeallmError(
            f"config.export.adapter is 'separate', but stage {last!r} also trained {', '.join(model.trainable)}, which "
            "no adapter holds; use 'merge'"
        )
    mesh = build_mesh(context.config.mesh)
    config, _, parameters = (model.base if separate and model.base else model).load_parameters(mesh)
    carried = context.directory.stage("base") / CARRIED
    summary = export_model(
        parameters,
        config,
        model.tokenizer,
        directory,
        dtype=context.config.export.dtype,
        shard_bytes=context.config.export.shard_bytes,
        card=_card(context),
        base_directory=carried if carried.is_dir() else None,
        progress=context.progress,
    )
    if separate:
        _save_adapter(context, model, mesh, directory)
    return {"model": last} | dataclasses.asdict(summary) | {"path": str(directory)}


STAGE = Stage(
    name="export",
    inputs=lambda context: {
        "model": context.manifest(present_models(context.config)[-1]).digest,
        "evaluation": context.manifest("evaluate").digest,
    },
    section=lambda config: to_dict(config.export),
    compute=_compute,
)


def _save_adapter(context: Context, model: StageModel, mesh: jax.sharding.Mesh, directory: pathlib.Path) -> None:
    """Writes the adapter of the last stage beside the model that it is for."""
    from seallm_jax.interop.adapters import save_adapter

    assert model.adapter is not None
    config, _, abstract = model.abstract(mesh)
    save_adapter(
        model.restore_adapted(abstract, config),
        config,
        model.adapter,
        directory / "adapter",
        base=str(directory),
        dtype=context.config.export.dtype,
    )


def _card(context: Context):
    from seallm_jax.interop.model_card import ModelCard

    config = context.config
    stages = [stage for stage in present_models(config) if stage not in ("base", "vocab")]
    evaluation = context.manifest("evaluate").outcome["bits_per_byte"]
    first, last = next(iter(evaluation)), list(evaluation)[-1]
    before, after = evaluation[first], evaluation[last]
    base = config.base.path or f"a small Llama trained from scratch on {', '.join(config.base.languages)}"
    outcome = context.manifest("vocab").outcome
    recipe = [
        f"- vocabulary: {outcome['base_size']:,} + {outcome['new_tokens']:,} tokens ({config.vocab.method}, rows "
        f"initialised by {config.vocab.initialization})",
        *(f"- {stage}: {_describe(getattr(config, stage))}" for stage in stages),
    ]
    return ModelCard(
        name=config.name,
        languages=context.languages.codes,
        base=base,
        recipe="\n".join(recipe),
        tokens={stage: context.manifest(stage).outcome["tokens"] for stage in stages},
        evaluation=[
            {
                "language": code,
                f"bits per byte, {first}": round(before[code]["bits_per_byte"], 3),
                f"bits per byte, {last}": round(after[code]["bits_per_byte"], 3),
                "change": f"{after[code]['bits_per_byte'] / before[code]['bits_per_byte'] - 1:+.0%}",
            }
            for code in after
        ],
        chat=config.sft is not None or config.preference is not None,
    )


def _describe(train: TrainConfig) -> str:
    """One line on a training stage for the model card."""
    adapter = train.adapter
    on = "" if adapter is None else f", low-rank adapter of rank {adapter.rank} on {', '.join(adapter.names)}"
    return train.objective.name.replace("_", " ") + on
