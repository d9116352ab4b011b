"""`seallm export`: the trained model as a Hugging Face folder."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any

from seallm_jax.cli.arguments import add_stage_command
from seallm_jax.cli.context import Context, Stage
from seallm_jax.cli.lineage import present_models, stage_model
from seallm_jax.core.config import to_dict
from seallm_jax.core.mesh import build_mesh


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
    config, _, parameters = model.load_parameters(build_mesh(context.config.mesh))
    summary = export_model(
        parameters,
        config,
        model.tokenizer,
        directory,
        dtype=context.config.export.dtype,
        shard_bytes=context.config.export.shard_bytes,
        card=_card(context),
        progress=context.progress,
    )
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
        *(f"- {stage}: {getattr(config, stage).objective.name.replace('_', ' ')}" for stage in stages),
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
