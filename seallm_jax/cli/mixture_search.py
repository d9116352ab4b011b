"""`seallm mixture search`: a mixture proposed by many small models."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import stage_model
from seallm_jax.cli.tables import print_table
from seallm_jax.core.config import to_dict
from seallm_jax.core.corpus_files import corpus_texts
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.manifest import fingerprint
from seallm_jax.core.paths import atomic_file, write_json
from seallm_jax.core.schema import ModelConfig, SearchConfig, StageConfig
from seallm_jax.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from seallm_jax.data.mixture_proposal import MixtureProposal
    from seallm_jax.data.shards import ShardReader
    from seallm_jax.training.proxies import ProxyTrainer

DIRECTORY, PROXIES_FILE, RESULT_FILE, PLOT_FILE = "search", "proxies.jsonl", "proposal.json", "proposal.png"
FIXED = ("temperature", "proportional", "uniform")  # the mixtures that are measured in any case, in this order
PROPOSAL = "proposal"
TRUSTED = 0.7  # rank correlation below which the user is warned


def add_parser(commands) -> argparse.ArgumentParser:
    """Adds the command below `seallm mixture`."""
    parser = add_command(
        commands,
        "search",
        help="propose the weights of the sources from many small models (RegMix)",
        description="Samples mixtures, trains a small model on each from the run's packed rows, measures bits per "
        "byte of held-out text, fits a regression by language, and proposes the mixture with the least predicted loss;"
        " a model is trained on that, too. Prints how far the fit can be trusted and a stage to paste. config.search"
        " says how. Each finished model is a line in WORKDIR/search/proxies.jsonl, so the same command resumes. Needs "
        "the stages up to pack.",
        example="seallm mixture search --config=configs/quickstart.py --workdir=runs/mine --config.search.mixtures=64",
    )
    add_run_arguments(parser)
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    context = make_context(options)
    result = search(context)
    show(result)
    return result


def search(context: Context) -> dict[str, Any]:
    """Trains what is not trained yet, fits, and returns what is written to proposal.json; see `_result`."""
    from seallm_jax.data.mixture_proposal import MixtureProposal
    from seallm_jax.data.search_plot import plot_search

    study, config = _Study(context), context.config.search
    directory = context.directory.root / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    records = study.measure(study.mixtures(), directory / PROXIES_FILE)
    proposal = MixtureProposal.of(
        np.array([record["shares"] for record in records]),
        np.array([list(record["bits_per_byte"].values()) for record in records]),
        study.weights,
        study.sampler,
        log=config.objective == "mean_log",
        seed=context.config.seed,
    )
    confirmed = study.measure({PROPOSAL: proposal.shares}, directory / PROXIES_FILE)[0]
    result = _result(study, config, records, proposal, confirmed)
    write_json(directory / RESULT_FILE, result)
    plot_search(result, directory / PLOT_FILE)
    return result | {"plot": str(directory / PLOT_FILE)}


class _Study:
    """What all models of a search share: rows, held-out text, shape, the mixtures that are allowed."""

    def __init__(self, context: Context):
        from seallm_jax.core.mesh import build_mesh
        from seallm_jax.data.mixture_sampler import MixtureSampler
        from seallm_jax.data.shards import open_shards

        config = context.config
        self._context = context
        self._tokenizer = stage_model(context, "vocab").load_tokenizer()
        self._length = config.packing.sequence_length
        opened = open_shards(context.directory.stage("pack"), tokenizer_digest=self._tokenizer.digest)
        self._readers = [reader for reader in opened if _matches(reader, config.search)]
        self.names = [reader.source().name for reader in self._readers]
        if len(self.names) < 2:
            raise SeallmError(
                f"config.search.sources = {', '.join(config.search.sources)} matches {len(self.names)} sources with "
                "rows; a mixture needs two at least"
            )
        if config.search.mixtures < 2 * len(self.names):
            raise UsageError(
                f"config.search.mixtures = {config.search.mixtures} for {len(self.names)} sources; it must be at least "
                f"{2 * len(self.names)}, for the fit has a coefficient a source"
            )
        self._mesh = build_mesh(config.mesh)
        self._tokens = np.array([reader.source().rows * self._length for reader in self._readers])
        heldout = context.directory.stage("corpus") / "heldout"
        texts = {code: list(corpus_texts(heldout, code)) for code in context.languages.codes}
        self._heldout = {code: documents for code, documents in texts.items() if documents}
        if unknown := sorted(set(config.search.weights) - set(self._heldout)):
            raise UsageError(
                f"config.search.weights has {', '.join(unknown)}; there is held-out text in {', '.join(self._heldout)}"
            )
        self.weights = np.array([config.search.weights.get(code, 1.0) for code in self._heldout])
        stages = config.pretrain.curriculum if config.pretrain else ()
        self.budget = config.search.budget or sum(stage.tokens for stage in stages) or config.search.tokens
        self.sampler = MixtureSampler.of_sizes(
            self._tokens,
            budget=self.budget,
            maximum_epochs=config.search.maximum_epochs,
            alpha=config.search.alpha,
            floor=config.search.floor,
        )
        inputs = {"tokens": context.manifest("pack").digest, "corpus": context.manifest("corpus").digest}
        search = to_dict(config.search)
        section = {
            "search": {key: search[key] for key in ("tokens", "model", "train")},
            "evaluation": to_dict(config.evaluation),
            "sources": self.names,
        }
        self._trainer: ProxyTrainer | None = None
        self._digest = fingerprint(DIRECTORY, inputs, section, config.seed)

    @property
    def codes(self) -> list[str]:
        """The languages that are measured."""
        return list(self._heldout)

    def mixtures(self) -> dict[str, np.ndarray]:
        """Name -> shares of the sources: the fixed ones, then samples, the strengths in turn."""
        config = self._context.config.search
        sizes = self._tokens / self._tokens.sum()
        fixed = (self.sampler.centre, sizes, np.full(len(sizes), 1 / len(sizes)))
        found = {name: self.sampler.allowed(shares) for name, shares in zip(FIXED, fixed, strict=True)}
        for number in range(config.mixtures - len(found)):
            rng = np.random.default_rng([self._context.config.seed, number])
            found[f"sample {number}"] = self.sampler.draw(1, config.strengths[number % len(config.strengths)], rng)[0]
        return found

    def measure(self, mixtures: dict[str, np.ndarray], path: pathlib.Path) -> list[dict[str, Any]]:
        """A record for each mixture: name, shares, bits_per_byte by language, loss, seconds; read where it is there."""
        known = self._read(path)
        keys = {name: [round(share, 9) for share in shares.tolist()] for name, shares in mixtures.items()}
        missing = {name: shares for name, shares in keys.items() if json.dumps(shares) not in known}
        done = len(mixtures) - len(missing)
        if missing:
            task = self._context.progress.task("search: models", total=len(mixtures), done=done)
            with task as advance, open(path, "a", encoding="utf-8") as file:
                for record in self._train(missing, advance):
                    file.write(json.dumps(record | {"digest": self._digest}, ensure_ascii=False) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    known[json.dumps(record["shares"])] = record
        return [known[json.dumps(shares)] | {"name": name} for name, shares in keys.items()]

    def _read(self, path: pathlib.Path) -> dict[str, dict[str, Any]]:
        """Shares as JSON -> record, of this search. What a kill has left of a line is cut off."""
        if not path.exists():
            return {}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) != len(lines):
            with atomic_file(path) as temporary:
                temporary.write_text("".join(whole), encoding="utf-8")
        records = [json.loads(line) for line in whole]
        return {json.dumps(record["shares"]): record for record in records if record["digest"] == self._digest}

    def _train(self, mixtures: dict[str, list[float]], advance: Any) -> Iterator[dict[str, Any]]:
        """Trains as many models at a time as fit, and yields each one's record."""
        from seallm_jax.data.loader import TrainLoader

        languages, items = self._context.languages, list(mixtures.items())
        if self._trainer is None:
            self._trainer = self._new_trainer(self._curriculum(items[0][1]).total_steps)
        trainer = self._trainer
        for start in range(0, len(items), trainer.size):
            part, begin = items[start : start + trainer.size], time.monotonic()
            loaders = [TrainLoader(self._curriculum(shares), self._readers, languages, threads=1) for _, shares in part]
            parameters = trainer.train(loaders, lambda n, note: advance(0, note))
            for (name, shares), values in zip(part, parameters, strict=True):
                bits = self._bits(trainer.decoder(values))
                seconds = (time.monotonic() - begin) / len(part)
                yield {"name": name, "shares": shares, "bits_per_byte": bits, "seconds": round(seconds, 2)}
                advance(1, f"{np.mean(list(bits.values())):.3f} bits per byte")

    def _new_trainer(self, steps: int) -> ProxyTrainer:
        from seallm_jax.training.proxies import ProxyTrainer

        config = self._context.config.search
        return ProxyTrainer(
            self._shape(),
            dataclasses.replace(config.train, curriculum=(), adapter=None),
            self._mesh,
            total_steps=steps,
            num_languages=len(self._context.languages),
            at_once=config.at_once or (1 if self._mesh.devices.flat[0].platform == "cpu" else 8),
            seed=self._context.config.seed,
        )

    def _curriculum(self, shares: Sequence[float]):
        from seallm_jax.data.curriculum import Curriculum

        config = self._context.config
        stage = StageConfig(
            tokens=config.search.tokens, mixture="explicit", weights=dict(zip(self.names, shares, strict=True))
        )
        return Curriculum.compile(
            (stage,),
            [reader.source() for reader in self._readers],
            sequence_length=self._length,
            batch_rows=config.search.train.batch_rows,
            seed=config.seed,
        )

    def _bits(self, model: Any) -> dict[str, float]:
        from seallm_jax.evaluation.bits_per_byte import bits_per_byte
        from seallm_jax.evaluation.scorer import Scorer

        config = self._context.config.evaluation
        scorer = Scorer(
            model,
            sequence_length=self._length,
            batch_rows=config.batch_rows,
            compute_dtype=config.compute_dtype,
            kernels=config.kernels,
        )
        measured = bits_per_byte(scorer, self._tokenizer, self._heldout, maximum_documents=config.maximum_documents)
        return {code: bits.bits_per_byte for code, bits in measured.by_language.items()}

    def _shape(self) -> ModelConfig:
        vocabulary = Vocabulary.padded(self._tokenizer.size)
        return dataclasses.replace(
            self._context.config.search.model,
            vocabulary_size=vocabulary.logical_size,
            padded_vocabulary_size=vocabulary.padded_size,
            max_positions=max(self._length, self._context.config.search.model.max_positions),
        )


def _matches(reader: ShardReader, config: SearchConfig) -> bool:
    source = reader.source()
    return source.rows > 0 and any(fnmatch.fnmatchcase(source.name, pattern) for pattern in config.sources)


def _result(
    study: _Study,
    config: SearchConfig,
    records: Sequence[dict[str, Any]],
    proposal: MixtureProposal,
    confirmed: dict[str, Any],
) -> dict[str, Any]:
    """What a search has found, as JSON.

    Keys: sources and their proposed shares; predicted and deviation, by language; objective, both for the objective;
    confirmed, the record of the model trained on the proposal; mixtures, the records of the others with wins (share of
    the resampled fits that prefer the proposal) and left_out (the objective predicted from the others); trust
    (spearman and r_squared of what is predicted so) of the objective and by language; forms of the regression; stage,
    what to paste.
    """
    codes = list(confirmed["bits_per_byte"])
    weights = study.weights / study.weights.sum()

    def objective(values: Any) -> float:
        values = np.asarray(values, np.float64)
        return float((np.log(values) if config.objective == "mean_log" else values) @ weights)

    def measured(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"objective": objective(list(record["bits_per_byte"].values()))}

    left_out = proposal.regression.left_out
    return {
        "sources": study.names,
        "shares": [round(float(share), 6) for share in proposal.shares],
        "predicted": dict(zip(codes, proposal.losses.tolist(), strict=True)),
        "deviation": dict(zip(codes, proposal.deviations.tolist(), strict=True)),
        "objective": {"predicted": proposal.objective, "deviation": proposal.objective_deviation},
        "confirmed": measured(confirmed),
        "mixtures": [
            measured(record) | {"wins": wins, "left_out": objective(values)}
            for record, wins, values in zip(records, proposal.wins.tolist(), left_out, strict=True)
        ],
        "trust": {
            "spearman": proposal.spearman,
            "r_squared": proposal.r_squared,
            "by_language": dict(zip(codes, proposal.by_language.tolist(), strict=True)),
        },
        "forms": dict(zip(codes, proposal.regression.forms, strict=True)),
        "stage": stage_to_paste(study.names, proposal.shares.tolist(), study.budget, config.maximum_epochs),
    }


def stage_to_paste(names: Sequence[str], shares: Sequence[float], tokens: int, maximum_epochs: float) -> str:
    """A stage of a curriculum as a config file has it."""
    weights = "".join(f'        "{name}": {share:.4f},\n' for name, share in zip(names, shares, strict=True))
    return (
        f'dict(\n    name="proposed",\n    tokens={tokens:_},\n    mixture="explicit",\n'
        f"    maximum_epochs={maximum_epochs:g},\n    weights={{\n{weights}    }},\n)"
    )


def show(result: dict[str, Any]) -> None:
    """Prints mixtures, losses by language, how far to trust them, and the stage to paste."""
    fixed = {record["name"]: record for record in result["mixtures"] if record["name"] in FIXED}
    sampled = [record for record in result["mixtures"] if record["name"] not in FIXED]
    best = min(sampled, key=lambda record: record["objective"])
    trust = result["trust"]
    columns = fixed | {f"best sampled ({best['name']})": best}
    print_table(
        f"Shares, of {len(result['mixtures'])} mixtures measured",
        [
            {"source": source}
            | {name: f"{record['shares'][place]:.2%}" for name, record in columns.items()}
            | {"proposed": f"{result['shares'][place]:.2%}"}
            for place, source in enumerate(result["sources"])
        ],
    )
    rows = [
        {"language": code}
        | {name: record["bits_per_byte"][code] for name, record in columns.items()}
        | {"proposed: predicted": f"{value:.3f} ± {result['deviation'][code]:.3f}"}
        | {"measured": result["confirmed"]["bits_per_byte"][code]}
        | {"Spearman": f"{trust['by_language'][code][0]:.2f}", "R²": f"{trust['by_language'][code][1]:.2f}"}
        for code, value in result["predicted"].items()
    ]
    rows.append(
        {"language": "objective"}
        | {name: record["objective"] for name, record in columns.items()}
        | {"proposed: predicted": f"{result['objective']['predicted']:.3f} ± {result['objective']['deviation']:.3f}"}
        | {"measured": result["confirmed"]["objective"]}
        | {"Spearman": f"{trust['spearman']:.2f}", "R²": f"{trust['r_squared']:.2f}"}
    )
    print_table("Bits per byte of held-out text (Spearman, R²: of predictions that leave the mixture out)", rows)
    for name, record in columns.items():
        print(f"  better than {name} in {record['wins']:.0%} of resampled fits")
    if trust["spearman"] < TRUSTED:
        print(f"  the fit orders mixtures badly (Spearman below {TRUSTED}): measure more of them, or train longer")
    beaten_by = min(columns, key=lambda name: columns[name]["objective"])
    if columns[beaten_by]["objective"] <= result["confirmed"]["objective"]:
        print(f"  trained, the proposal was not better than {beaten_by}: keep that one, or measure more mixtures")
    print(f"\nA stage for config.pretrain.curriculum:\n\n{result['stage']}\n\nplot: {result['plot']}")
