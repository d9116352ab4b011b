"""`seallm generate`: sample from a Hugging Face folder, or from the first and last model of a run."""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, Stage, execute
from seallm_jax.cli.lineage import present_models, stage_model
from seallm_jax.core.config import to_dict
from seallm_jax.core.corpus_files import corpus_texts
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import file_digest, read_jsonl, write_jsonl
from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import resolve_path
from seallm_jax.core.schema import GenerationConfig

if TYPE_CHECKING:
    from seallm_jax.models.decoder import Decoder
    from seallm_jax.tokenization.tokenizer import Tokenizer

PROMPT_WORDS = 6  # of a held-out document, where words have spaces
PROMPT_CHARACTERS = 24  # where they have none
SAMPLING_OPTIONS = ("maximum_new_tokens", "temperature", "top_p", "repetition_penalty", "compute_dtype")


def add_parser(subparsers) -> argparse.ArgumentParser:
    defaults = GenerationConfig()
    parser = add_command(
        subparsers,
        "generate",
        help="sample text, in batches, with a key-value cache",
        description="With --model: continues prompts (or answers them, with --chat). With --config: the "
        "generations that the report of a run shows.",
        example='seallm generate --model=runs/mine/export --chat --prompt "Apa kabar?" --temperature=0',
    )
    add_run_arguments(parser, required=False)
    group = parser.add_argument_group("one model")
    group.add_argument("--model", metavar="DIR", help="Hugging Face folder")
    group.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a prompt; may be repeated")
    group.add_argument("--prompts", metavar="FILE", help=".txt file of one prompt a line, or .jsonl with `prompt`")
    group.add_argument("--output", metavar="FILE", help="write .jsonl of `prompt` and `text` (default: print)")
    group.add_argument("--chat", action="store_true", help="a prompt is a user's turn; render the chat template")
    for name in SAMPLING_OPTIONS:
        value = getattr(defaults, name)
        group.add_argument(f"--{name}", type=type(value), default=value, help="default: %(default)s")
    group.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    if options.model:
        return _generate_from_folder(options)
    if not options.config:
        raise UsageError("give --model=DIR and --prompt=TEXT, or --config=FILE for the generations of a run")
    outcome = execute(STAGE, make_context(options)).outcome
    show(outcome)
    return outcome


def show(outcome: dict[str, Any]) -> None:
    """Prints the generations of the last model."""
    for generation in outcome["generations"]:
        text = list(generation["outputs"].values())[-1]
        print(f"[{generation['language']}] {generation['prompt']}\n  → {text.strip()}")


def continue_prompts(
    model: Decoder, tokenizer: Tokenizer, prompts: Sequence[str], config: GenerationConfig, *, seed: int, chat: bool
) -> list[str]:
    """The texts that a model puts after the prompts, or its replies to them."""
    from seallm_jax.generation.sampler import generate

    if chat:
        from seallm_jax.data.chat import ChatRenderer
        from seallm_jax.data.message import Message

        renderer = ChatRenderer(tokenizer)
        rendered = [renderer.render([Message("user", prompt)], generation_prompt=True) for prompt in prompts]
        ids = [tokenizer.encode(text, special=True) for text in rendered]
    else:
        ids = [tokenizer.encode(prompt, bos=True) or [tokenizer.begin_id] for prompt in prompts]
    outputs = generate(
        model,
        ids,
        maximum_new_tokens=config.maximum_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        repetition_penalty=config.repetition_penalty,
        seed=seed,
        eos_ids=tokenizer.stop_ids,
        compute_dtype=config.compute_dtype,
    )
    return [tokenizer.decode(output) for output in outputs]


def _compute(context: Context, directory: pathlib.Path) -> dict[str, Any]:
    config = context.config
    mesh = build_mesh(config.mesh)
    prompts = _prompts(context)
    generations = [{**prompt, "outputs": {}} for prompt in prompts]
    models = present_models(config)
    with context.progress.task("generating", total=2 * len(prompts)) as advance:
        for name in (models[0], models[-1]):
            model = stage_model(context, name)
            decoder, tokenizer = model.load(mesh), model.load_tokenizer()
            for chat in (False, True):
                chosen = [index for index, prompt in enumerate(prompts) if prompt["chat"] == chat]
                if not chosen:
                    continue
                texts = continue_prompts(
                    decoder,
                    tokenizer,
                    [prompts[index]["prompt"] for index in chosen],
                    config.generation,
                    seed=config.seed,
                    chat=chat,
                )
                for index, text in zip(chosen, texts, strict=True):
                    generations[index]["outputs"][name] = text
                advance(len(chosen))
    return {"generations": generations}


def _prompts(context: Context) -> list[dict[str, Any]]:
    """For each language, beginnings of held-out documents, and a question when the run has a fine-tuning stage."""
    config = context.config
    count = config.generation.prompts_per_language
    prompts: list[dict[str, Any]] = []
    questions = _questions(context) if config.sft is not None else {}
    for code in context.languages.codes:
        texts = itertools.islice(corpus_texts(context.directory.stage("corpus") / "heldout", code), count)
        prompts += [{"language": code, "prompt": _beginning(text), "chat": False} for text in texts]
        prompts += [{"language": code, "prompt": text, "chat": True} for text in questions.get(code, [])[:1]]
    return prompts


def _questions(context: Context) -> dict[str, list[str]]:
    """First user turns of the multiple-choice file, which no stage trains on, by language."""
    from seallm_jax.evaluation.choice_items import read_choice_items

    questions: dict[str, list[str]] = {}
    for item in read_choice_items(resolve_path(context.config.evaluation.choices, "choices")):
        questions.setdefault(item.language, []).append(item.context.strip())
    return questions


def _beginning(text: str) -> str:
    line = text.split("\n")[0]
    words = line.split(" ")
    if len(words) > PROMPT_WORDS and len(line) / len(words) < PROMPT_CHARACTERS / 2:
        return " ".join(words[:PROMPT_WORDS])
    return line[:PROMPT_CHARACTERS]


STAGE = Stage(
    name="generate",
    inputs=lambda context: {
        "first": context.manifest(present_models(context.config)[0]).digest,
        "last": context.manifest(present_models(context.config)[-1]).digest,
        "choices": file_digest(resolve_path(context.config.evaluation.choices, "choices")),
    },
    section=lambda config: to_dict(config.generation),
    compute=_compute,
)


def _generate_from_folder(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.interop.huggingface import import_model
    from seallm_jax.tokenization.tokenizer import Tokenizer

    prompts = [*options.prompt, *(_read_prompts(pathlib.Path(options.prompts)) if options.prompts else [])]
    if not prompts:
        raise UsageError("give a prompt: --prompt=TEXT or --prompts=FILE")
    try:
        config = GenerationConfig(**{name: getattr(options, name) for name in SAMPLING_OPTIONS})
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    imported = import_model(options.model, progress=Progress())
    texts = continue_prompts(
        imported.decoder(), Tokenizer.load(options.model), prompts, config, seed=options.seed, chat=options.chat
    )
    records = [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]
    if options.output:
        write_jsonl(options.output, records)
    else:
        for record in records:
            print(f"{record['prompt']}{'' if not options.chat else chr(10)}{record['text']}\n", file=sys.stdout)
    return {"generations": records}


def _read_prompts(path: pathlib.Path) -> list[str]:
    if path.suffix == ".jsonl":
        records = list(read_jsonl(path))
        missing = next((number for number, record in enumerate(records, 1) if "prompt" not in record), None)
        if missing is not None:
            raise SeallmError(f"{path}, record {missing}: no field `prompt`")
        return [record["prompt"] for record in records]
    if not path.exists():
        raise SeallmError(f"{path} does not exist")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
