"""`seallm plan`: compile training or generation for a TPU topology on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command, add_run_arguments, make_context
from seallm_jax.cli.context import Context
from seallm_jax.cli.lineage import TRAINING_STAGES
from seallm_jax.cli.plan_report import outcome, show_generation, show_plan, show_remedy, show_search
from seallm_jax.cli.training import compile_curriculum, for_rows
from seallm_jax.core.errors import UsageError
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import write_json
from seallm_jax.core.schema import ModelConfig, RunConfig, TrainConfig
from seallm_jax.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from seallm_jax.planning.candidate import Candidate
    from seallm_jax.planning.plan import Plan
    from seallm_jax.planning.search import Search, Trial

DIRECTORY = "plan"  # in the run directory
DOUBLINGS = 6  # of a slice that is too small
KERNEL_TIMEOUT = 3600  # seconds, as steps have: a busy machine takes long
REMEDIES = 2  # compilations that look for what fits, where the config does not


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "plan",
        help="compile for a TPU topology: memory, predicted step time, and the best settings",
        description="Compiles the very step that `train` runs for a TPU slice, with the real compiler and "
        "without a TPU (pip install 'seallm_jax[plan]'). Tells the memory of each device and predicts the time of a "
        "step and of the whole stage. Where it does not fit, compiles what would. --search compiles meshes, remat "
        "policies, accumulation and larger batches, and names the fastest that fits. Results and a picture are saved "
        "to WORKDIR/plan.",
        example="seallm plan --config=configs/llama2_7b.py --topology=v5e:16x16 --search",
    )
    add_run_arguments(parser)
    parser.add_argument("--topology", required=True, metavar="NAME", help="as v5e:16x16, v5p:4x4x8, 2*v6e:16x16")
    stages = (*TRAINING_STAGES, "generation")
    parser.add_argument("--stage", choices=stages, default="pretrain", help="default: %(default)s")
    group = parser.add_argument_group("search")
    group.add_argument("--search", action="store_true", help="look for the fastest settings that fit")
    group.add_argument(
        "--compiles",
        type=int,
        default=12,
        metavar="N",
        help="at most so many; what does not fit counts a quarter (default: %(default)s)",
    )
    group = parser.add_argument_group("--stage=generation")
    group.add_argument("--rows", type=int, default=16, metavar="N", help="prompts at a time (default: %(default)s)")
    group.add_argument("--positions", type=int, default=1024, metavar="N", help="of a prompt (default: %(default)s)")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    import jax

    jax.config.update("jax_platforms", "cpu")  # this process counts steps only; the TPU compiler is in another
    context = make_context(options)
    if options.stage == "generation":
        if options.search:
            raise UsageError("--search looks for settings of training; leave it out for --stage=generation")
        return _plan_generation(context, options)
    if options.compiles < 1:
        raise UsageError(f"--compiles is {options.compiles}; it must be positive")
    study = _Study(context, options.stage, options.topology)
    plan = study.plan(study.train, f"the config as it is for {options.topology}")
    show_plan(f"{context.config.name}, {options.stage}", plan)
    result: dict[str, Any] = plan.to_json()
    plans = {"config": plan}
    if options.search or not plan.fits:
        search = study.search(plan)
        if options.search:
            study.run(search, options.compiles)
            show_search(search, options.stage)
        else:
            study.remedy(search)
            show_remedy(search, options.stage, study.larger_topology(search))
        plans = {trial.candidate.name: trial.plan for trial in search.trials if trial.plan is not None}
        result["trials"] = [_to_json(trial, search, options.stage) for trial in search.trials]
        best = search.best()
        result["best"] = None if best is None else _to_json(best, search, options.stage)
    return _save(context, options, result, plans)


class _Study:
    """A stage of a config on a topology, and other ways to train it."""

    def __init__(self, context: Context, stage: str, topology: str):
        from seallm_jax.planning.kernel_seconds import KernelSeconds
        from seallm_jax.planning.topology import Topology

        config = context.config
        train = getattr(config, stage)
        if train is None:
            raise UsageError(f"the config has no stage {stage!r}: config.{stage} is not set")
        self._context, self._config = context, config
        self._topology = Topology.parse(topology)
        self.shape = planned_shape(config)
        train = for_rows(train.with_new_rows(self.shape.vocabulary_size - config.vocab.size), config.packing)
        self.train = train.with_document_length(measured_document_length(context, stage, train))
        length = self.train.kernels.document_length
        self._kernels = KernelSeconds(
            self._topology.generation, document_length=length, model=self.shape, timeout=KERNEL_TIMEOUT
        )

    def plan(self, train: TrainConfig, note: str, mesh: Any = None) -> Plan:
        """Compiles the stage as given."""
        from seallm_jax.planning.compile import plan_step

        mesh = mesh or self._config.mesh
        vocabulary = Vocabulary.padded(self.shape.vocabulary_size, tensor=max(mesh.tensor, 1))
        shape = dataclasses.replace(self.shape, padded_vocabulary_size=vocabulary.padded_size)
        progress = self._context.progress
        progress.say(f"compiling {note}")
        plan = plan_step(
            shape,
            train.with_largest_batch(),
            self._config.packing,
            mesh,
            self._topology.name,
            kernel_seconds=self._kernels,
        )
        progress.say(f"[dim]  {outcome(plan)}, compiled in {plan.compile_seconds:.0f} s[/dim]")
        return plan

    def search(self, plan: Plan) -> Search:
        """All ways to train the stage on this topology; `plan` is that of the config as it is."""
        from seallm_jax.planning.candidate import Candidate, candidates
        from seallm_jax.planning.rough_cost import RoughCost
        from seallm_jax.planning.search import Search, Trial

        slices = self._topology.slices if self._topology.slices > 1 else self._config.mesh.slices
        mesh = dataclasses.replace(self._config.mesh, **plan.mesh, slices=slices)
        legal = candidates(self.shape, self.train, self._config.packing, mesh, self._topology.devices)
        cost = RoughCost(self.shape, self.train, self._config.packing, self._topology)
        search = Search(legal, cost, plan.capacity_bytes)
        search.add(Trial(Candidate(mesh, self.train.remat, self.train.batch_rows, self.train.accumulation), plan))
        return search

    def run(self, search: Search, compilations: int) -> None:
        """Compiles what is worth it."""
        self._context.progress.say(
            f"{search.considered:,} ways to lay it out, {search.too_large:,} of them too large whatever the compiler "
            f"does; compiling up to {compilations - 1} more"
        )
        search.run(self._attempt, compilations)

    def remedy(self, search: Search) -> None:
        """Compiles what should fit and changes the least."""
        for _ in range(REMEDIES):
            if (candidate := search.remedy()) is None or search.best() is not None:
                break
            search.attempt(candidate, self._attempt)

    def larger_topology(self, search: Search) -> str | None:
        """A larger slice on which some settings should fit; nothing is compiled."""
        from seallm_jax.planning.candidate import candidates
        from seallm_jax.planning.rough_cost import RoughCost

        config, shape = self._config, list(self._topology.shape)
        for _ in range(DOUBLINGS):
            shape[shape.index(min(shape))] *= 2
            topology = dataclasses.replace(self._topology, shape=tuple(shape))
            cost = RoughCost(self.shape, self.train, config.packing, topology)
            legal = candidates(self.shape, self.train, config.packing, config.mesh, topology.devices)
            if any(search.fits_on(cost, topology.chip.hbm_bytes, found) for found in legal):
                return topology.name
        return None

    def _attempt(self, candidate: Candidate) -> Plan:
        return self.plan(candidate.applied(self.train), candidate.name, candidate.mesh)


def _plan_generation(context: Context, options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.planning.generation import plan_generation

    config = context.config
    context.progress.say(f"compiling generation for {options.topology}")
    plan = plan_generation(
        planned_shape(config),
        config.generation,
        config.mesh,
        options.topology,
        rows=options.rows,
        positions=options.positions,
    )
    show_generation(f"{config.name}, generation", plan)
    return _save(context, options, plan.to_json(), {})


def _save(
    context: Context, options: argparse.Namespace, result: dict[str, Any], plans: dict[str, Plan]
) -> dict[str, Any]:
    """Writes the result, and a picture of plans, below WORKDIR/plan."""
    topology = options.topology.strip().lower().replace(":", "-").replace("*", "x")
    path = context.directory.root / DIRECTORY / f"{options.stage}-{topology}{'-search' if options.search else ''}.json"
    write_json(path, result)
    written = str(path)
    if plans:
        from seallm_jax.planning.plan_plot import plot_plans

        plot_plans(plans, path.with_suffix(".png"))
        written += f" and {path.with_suffix('.png').name}"
    print(f"written to {written}")
    return result


def _to_json(trial: Trial, search: Search, stage: str) -> dict[str, Any]:
    return {
        "name": trial.candidate.name,
        "overrides": trial.candidate.overrides(stage, search.trials[0].candidate),
        "refused": trial.refused,
        "plan": None if trial.plan is None else trial.plan.to_json(),
    }


def measured_document_length(context: Context, stage: str, train: TrainConfig) -> int:
    """Usual length of a document in the rows that the run has packed for a stage; 0 where it has packed none."""
    from seallm_jax.data.loader import TrainLoader

    packed = Manifest.read(context.directory.stage("pack"))
    if packed is None or train.kernels.document_length:
        return 0
    readers, curriculum = compile_curriculum(context, stage, train, context.directory.stage("pack"), None)
    return TrainLoader(curriculum, readers, context.languages).document_length


def planned_shape(config: RunConfig) -> ModelConfig:
    """Shape of the model after vocabulary extension: of the folder `base.path` where it exists, else `base.model`."""
    path = pathlib.Path(config.base.path).expanduser() if config.base.path else None
    if path is not None and path.exists():
        from seallm_jax.interop.huggingface import read_config

        model = read_config(path)
        base_size = model.vocabulary_size
    else:
        model = config.base.model
        base_size = model.vocabulary_size or config.base.vocabulary_size
    vocabulary = Vocabulary.padded(base_size + config.vocab.size, tensor=max(config.mesh.tensor, 1))
    return dataclasses.replace(
        model, vocabulary_size=vocabulary.logical_size, padded_vocabulary_size=vocabulary.padded_size
    )
