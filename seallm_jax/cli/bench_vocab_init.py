"""`seallm bench vocab-init`: continued pretraining from every initialisation of the new rows, several seeds each."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context, execute
from seallm_jax.cli.tables import print_table
from seallm_jax.core.corpus_files import corpus_texts
from seallm_jax.core.errors import UsageError
from seallm_jax.core.manifest import fingerprint
from seallm_jax.core.paths import read_json, write_json
from seallm_jax.core.vocab_config import INITIALIZATIONS

DIRECTORY = "initializations"
RESULT_FILE, PLOT_FILE = "results.json", "curves.png"
DEFAULT_METHODS = (*INITIALIZATIONS, "mean+first", "mean+similarity")


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Adds the command below `seallm bench`."""
    parser = add_command(
        subparsers,
        "vocab-init",
        help="compare initialisations of new embedding rows by continued pretraining",
        description="Runs the corpus, base, vocab and pack stages of a config; then, for each method and seed, makes"
        " the new rows, continues pretraining as config.pretrain says, and measures bits per byte of held-out text on"
        " the way. For one seed, all methods see the same rows in the same order. Finished runs are kept, so the same"
        " command resumes. Writes a table, a plot and JSON to WORKDIR/initializations.",
        example="seallm bench vocab-init --config=configs/initialization.py --config.corpus.path=DIR --seeds=3",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(DEFAULT_METHODS),
        metavar="METHOD",
        help="INPUT or INPUT+OUTPUT, where the output matrix differs (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds of order and noise, default 3")
    parser.add_argument("--points", type=int, default=6, metavar="N", help="measurements on the way, default 6")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    for method in options.methods:
        if not set(method.split("+")) <= set(INITIALIZATIONS) or method.count("+") > 1:
            raise UsageError(f"no initialisation {method!r}; use {', '.join(INITIALIZATIONS)}, or two of them as A+B")
    if options.seeds < 1 or options.points < 1:
        raise UsageError(f"--seeds is {options.seeds} and --points is {options.points}; both must be at least 1")
    context = make_context(options)
    if context.config.pretrain is None:
        raise UsageError("config.pretrain is not set; it says how pretraining is continued")
    result = run_study(context, options.methods, options.seeds, options.points)
    show(result)
    return result


def run_study(context: Context, methods: Sequence[str], seeds: int, points: int) -> dict[str, Any]:
    """Every method with every seed; {"before": bits per byte by language, "runs": [...], "summary": table}."""
    from seallm_jax.cli import base, corpus, pack, vocab

    for stage in (corpus.STAGE, base.STAGE, vocab.STAGE, pack.STAGE):
        execute(stage, context)
    directory = context.directory.root / DIRECTORY
    study = _Study(context, points)
    inputs = {"pack": context.manifest("pack").digest, "base": context.manifest("base").digest}
    runs = []
    for seed in range(seeds):
        for method in methods:
            section = {"method": method, "seed": seed, "points": points, "train": dataclasses.asdict(study.train)}
            digest = fingerprint(DIRECTORY, inputs, section, context.config.seed)
            path = directory / f"{method}-{seed}.json"
            if not path.exists() or read_json(path).get("digest") != digest:
                curve = list(study.curve(method, seed))
                write_json(path, {"digest": digest, "method": method, "seed": seed, "curve": curve})
            runs.append(read_json(path))
    result = {"before": study.before(), "runs": runs, "summary": summarise(runs)}
    write_json(directory / RESULT_FILE, result)
    plot(result, directory / PLOT_FILE)
    return result


class _Study:
    """What the runs share: base model, extension, rows, held-out text, one compiled step."""

    def __init__(self, context: Context, points: int):
        from seallm_jax.cli.lineage import stage_model
        from seallm_jax.core.mesh import build_mesh
        from seallm_jax.tokenization.extension import Extension

        self._context = context
        self._points = points
        self._mesh = build_mesh(context.config.mesh)
        self._base = stage_model(context, "base")
        self._extension = Extension.load(context.directory.stage("vocab"))
        self._initializers: dict[tuple[str, int], Any] = {}
        self._program: Any = None
        assert context.config.pretrain is not None
        self.train = context.config.pretrain
        corpus = context.directory.stage("corpus")
        self._texts = [text for code in self._codes for text in corpus_texts(corpus / "train", code)]
        self._heldout = {code: list(corpus_texts(corpus / "heldout", code)) for code in self._codes}

    @property
    def _codes(self) -> tuple[str, ...]:
        return self._context.languages.codes

    def before(self) -> dict[str, float]:
        """Bits per byte of the base model with its own tokenizer."""
        from seallm_jax.evaluation.scorer import Scorer

        return self._bits(Scorer(self._base.load(self._mesh), **self._scoring), self._base.load_tokenizer())

    def curve(self, method: str, seed: int) -> Iterator[dict[str, Any]]:
        """{"step", "bits": by language, "mean": over the languages} at steps 0, ..., 1/4, 1/2, 1 of the stage."""
        import jax
        from flax import nnx

        from seallm_jax.cli.training import compile_curriculum
        from seallm_jax.data.loader import TrainLoader
        from seallm_jax.evaluation.scorer import Scorer
        from seallm_jax.models.layout import abstract_decoder
        from seallm_jax.training.distributed import global_batch, local_rows
        from seallm_jax.training.state import TrainState, shardings_of
        from seallm_jax.training.step import build_step

        context = dataclasses.replace(
            self._context, config=dataclasses.replace(self._context.config, seed=self._context.config.seed + seed)
        )
        tokenizer = self._extension.tokenizer
        shards = context.directory.stage("pack")
        readers, curriculum = compile_curriculum(context, "pretrain", self.train, shards, tokenizer.digest)
        loader = TrainLoader(curriculum, readers, context.languages)
        steps = loader.plan.total_steps
        shape, parameters = self._parameters(method, seed)
        if self._program is None:
            self._program = build_step(
                shape,
                self.train,
                self._mesh,
                sequence_length=loader.sequence_length,
                total_steps=steps,
                num_languages=len(self._codes),
                first_new_row=self._extension.base_size,
            )
        program = self._program
        shardings = shardings_of(program.abstract_state)
        parameters = jax.device_put(parameters, shardings.params)
        state = TrainState.create(parameters, program.optimizer, shardings, program.trainable)
        graph, _ = abstract_decoder(shape)
        batches = loader.batches(0, local_rows(program.abstract_batch))
        measured = {0, *(max(1, round(steps / 2**halvings)) for halvings in range(self._points))}
        with context.progress.task(f"{method}, seed {seed}", total=steps) as advance:
            for step in range(steps + 1):
                if step:
                    whole = program.batch_of(loader.plan.size_at(step - 1))
                    state, metrics = program.run(state, global_batch(next(batches), local_rows(whole), whole))
                    advance(1, f"loss {float(metrics.sums.loss / metrics.sums.count):.3f}")
                if step in measured:
                    model = nnx.merge(graph, state.params)
                    bits = self._bits(Scorer(model, **self._scoring), tokenizer)
                    yield {"step": step, "bits": bits, "mean": statistics.fmean(bits.values())}

    @property
    def _scoring(self) -> dict[str, Any]:
        return {
            "sequence_length": self._context.config.packing.sequence_length,
            "batch_rows": self._context.config.evaluation.batch_rows,
            "compute_dtype": self._context.config.evaluation.compute_dtype,
        }

    def _bits(self, scorer: Any, tokenizer: Any) -> dict[str, float]:
        from seallm_jax.evaluation.bits_per_byte import bits_per_byte

        maximum = self._context.config.evaluation.maximum_documents
        result = bits_per_byte(scorer, tokenizer, self._heldout, maximum_documents=maximum)
        return {code: bits.bits_per_byte for code, bits in result.by_language.items()}

    def _parameters(self, method: str, seed: int) -> tuple[Any, Any]:
        """(shape, parameters) of the base model with new rows."""
        from seallm_jax.cli.vocab import extend_parameters

        inputs, _, outputs = method.partition("+")
        shape, _, parameters = self._base.load_parameters(self._mesh)
        return extend_parameters(
            parameters,
            shape,
            self._extension.tokenizer.size,
            self._initializer(inputs, seed),
            self._initializer(outputs or inputs, seed),
            tensor=self._mesh.shape["tensor"],
        )

    def _initializer(self, method: Any, seed: int) -> Any:
        from seallm_jax.tokenization.embeddings import RowInitializer

        if (method, seed) not in self._initializers:
            self._initializers[method, seed] = RowInitializer(
                self._extension,
                method,
                base=self._base.load_tokenizer(),
                texts=self._texts,
                seed=seed,
                progress=self._context.progress,
            )
        return self._initializers[method, seed]


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method, best first: mean over languages, then over seeds, with the standard deviation over seeds.

    `difference` is that of the last measurement to the first method's with the same seed.
    """
    reference = {run["seed"]: run["curve"][-1]["mean"] for run in runs if run["method"] == runs[0]["method"]}
    rows = []
    for method in dict.fromkeys(run["method"] for run in runs):
        mine = [run for run in runs if run["method"] == method]
        row: dict[str, Any] = {"method": method, "seeds": len(mine)}
        for index, point in enumerate(mine[0]["curve"]):
            row[f"step {point['step']}"] = _mean_deviation([run["curve"][index]["mean"] for run in mine])
        row["difference"] = _mean_deviation([run["curve"][-1]["mean"] - reference[run["seed"]] for run in mine])
        row["by_language"] = {
            code: _mean_deviation([run["curve"][-1]["bits"][code] for run in mine]) for code in point["bits"]
        }
        rows.append(row)
    last = f"step {runs[0]['curve'][-1]['step']}"
    return sorted(rows, key=lambda row: row[last]["mean"])


def show(result: dict[str, Any]) -> None:
    """Prints the mean over languages on the way, and the last measurement by language."""
    rows = result["summary"]
    before = statistics.fmean(result["before"].values())
    steps = [key for key in rows[0] if key.startswith("step ")]
    print_table(
        f"Bits per byte, mean over {len(result['before'])} languages ± deviation over seeds (base model: {before:.3f})",
        [{"method": row["method"]} | {key: _text(row[key]) for key in (*steps, "difference")} for row in rows],
    )
    print_table(
        f"Bits per byte by language at {steps[-1]}",
        [{"method": "base model"} | {code: f"{bits:.3f}" for code, bits in result["before"].items()}]
        + [{"method": row["method"]} | {c: f"{v['mean']:.3f}" for c, v in row["by_language"].items()} for row in rows],
    )


def plot(result: dict[str, Any], path: pathlib.Path) -> None:
    """Draws the curves of all methods (mean and range over seeds) and, for each run, the last difference, as PNG."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from seallm_jax.core.paths import atomic_file

    runs, order = result["runs"], [row["method"] for row in result["summary"]]
    figure = Figure(figsize=(12, 5), layout="constrained")
    curves, ends = figure.subplots(1, 2, width_ratios=(3, 2))
    reference = {run["seed"]: run["curve"][-1]["mean"] for run in runs if run["method"] == runs[0]["method"]}
    for index, method in enumerate(order):
        mine = [run["curve"] for run in runs if run["method"] == method]
        colour = colormaps["tab10"](index % 10)
        steps = [point["step"] for point in mine[0]]
        values = [[curve[place]["mean"] for curve in mine] for place in range(len(steps))]
        curves.plot(steps, [statistics.fmean(v) for v in values], "o-", color=colour, label=method, markersize=3)
        curves.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15)
        last = [run["curve"][-1]["mean"] - reference[run["seed"]] for run in runs if run["method"] == method]
        ends.plot(last, [index] * len(last), "o", color=colour, markersize=5, alpha=0.7)
        ends.plot([statistics.fmean(last)], [index], "|", color=colour, markersize=18, markeredgewidth=2)
    before = statistics.fmean(result["before"].values())
    curves.axhline(before, color="#6b7683", linewidth=0.8, linestyle=":", label="base model, not extended")
    curves.set_xscale("symlog", base=2, linthresh=max(1, runs[0]["curve"][1]["step"]))
    curves.set_xticks([point["step"] for point in runs[0]["curve"]])
    curves.set_xticklabels([str(point["step"]) for point in runs[0]["curve"]])
    curves.minorticks_off()
    curves.set(xlabel="optimizer steps", ylabel="bits per byte of held-out text, mean over languages")
    curves.legend(frameon=False, fontsize=8)
    ends.axvline(0, color="#6b7683", linewidth=0.8, linestyle=":")
    ends.set_yticks(range(len(order)), order)
    ends.invert_yaxis()
    ends.set(xlabel=f"bits per byte at the end,\nless those of {runs[0]['method']} with the same seed")
    for axes in (curves, ends):
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _mean_deviation(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "deviation": statistics.stdev(values) if len(values) > 1 else 0.0}


def _text(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} ± {value['deviation']:.3f}"
