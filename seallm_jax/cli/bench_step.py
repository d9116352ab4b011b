"""`seallm bench step`: one training step here, and of transformers with torch in eager mode, taking turns."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.plan import planned_shape
from seallm_jax.cli.tables import print_table
from seallm_jax.core.config import load_config
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.schema import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from seallm_jax.training.step import StepProgram


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = add_command(
        subparsers,
        "step",
        help="a training step against transformers and torch",
        description="Times the training step of a config on one device, on random rows, and the same step of "
        "transformers with torch in eager mode and float32 on the CPU. They take turns, a few steps each, so that what "
        "else this machine does meets both. A Llama of the shape of the config is what both train.",
        example="seallm bench step --config=configs/quickstart.py",
    )
    parser.add_argument("--config", default="configs/quickstart.py", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--config.KEY", dest="_override", metavar="VALUE", help="set a value of the config")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="turns of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="steps of a turn (default: %(default)s)")
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    config = load_config(options.config, options.overrides)
    train = config.pretrain
    if train is None:
        raise UsageError(f"{options.config} has no pretrain section")
    if options.rounds < 1 or options.steps < 1:
        raise UsageError("--rounds and --steps must be positive")
    if importlib.util.find_spec("torch") is None:
        raise SeallmError("bench step needs torch; install it with: pip install 'seallm_jax[parity]'")
    model, positions = planned_shape(config), config.packing.sequence_length
    ours = {
        dtype: _steps(model, dataclasses.replace(train, curriculum=(), compute_dtype=dtype), positions)
        for dtype in ("float32", "bfloat16")
    }
    with _peer(model, train.batch_rows, positions) as child:

        def theirs(steps: int) -> list[float]:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(f"{steps}\n")
                child.stdin.flush()
            if not (line := child.stdout.readline()):
                raise SeallmError("the process of transformers has ended; what it says is above")
            return json.loads(line)

        contestants: dict[str, Callable[[int], list[float]]] = {f"seallm_jax, {d}": run for d, run in ours.items()}
        contestants["transformers, float32"] = theirs
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for run in contestants.values():
            run(2)  # compiles, and makes room
        for _ in range(options.rounds):
            for name, run in contestants.items():
                seconds[name] += run(options.steps)
        child.stdin.close()
    return _report(seconds, train.batch_rows * positions)


def _report(seconds: dict[str, list[float]], tokens: int) -> dict[str, Any]:
    import numpy as np

    median = {name: float(np.median(values)) for name, values in seconds.items()}
    peer = median["transformers, float32"]
    print_table(
        f"a training step of {tokens:,} tokens",
        [
            {
                "": name,
                "median ms": f"{1e3 * value:.1f}",
                "p95 ms": f"{1e3 * np.percentile(seconds[name], 95):.1f}",
                "tokens/s": f"{tokens / value:,.0f}",
                "of transformers": f"{peer / value:.2f} x",
            }
            for name, value in median.items()
        ],
    )
    return {"tokens": tokens, "seconds": seconds, "median": median, "ratio": {n: peer / v for n, v in median.items()}}


def _steps(model: ModelConfig, train: TrainConfig, positions: int) -> Callable[[int], list[float]]:
    """A function that trains some steps and returns their seconds."""
    import jax
    from flax import nnx

    from seallm_jax.core.mesh import build_mesh
    from seallm_jax.core.schema import MeshConfig
    from seallm_jax.models.layout import initialize
    from seallm_jax.training.state import TrainState, shardings_of
    from seallm_jax.training.step import build_step

    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    program = build_step(model, train, mesh, sequence_length=positions, total_steps=1000, num_languages=16)
    params = nnx.state(initialize(model, seed=0, mesh=mesh))
    state = TrainState.create(params, program.optimizer, shardings_of(program.abstract_state))
    batch = _rows(program, model.vocabulary_size)

    def run(steps: int) -> list[float]:
        nonlocal state
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            state, metrics = program.run(state, batch)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
        return seconds

    return run


def _rows(program: StepProgram, vocabulary: int) -> Any:
    """Rows of one document of random ids each, as the peer gets them."""
    import jax
    import numpy as np

    from seallm_jax.core.batch import Batch

    shape = program.abstract_batch.shape
    ids = np.random.default_rng(0).integers(0, vocabulary, (shape[0], shape[1] + 1)).astype(np.int32)
    ones, positions = np.ones(shape, np.int32), np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    batch = Batch(ids[:, :-1], ids[:, 1:], positions, ones, ones.astype(np.float32), 0 * ones)
    return jax.device_put(batch, jax.tree.map(lambda leaf: leaf.sharding, program.abstract_batch))


@contextlib.contextmanager
def _peer(model: ModelConfig, rows: int, positions: int) -> Iterator[Any]:
    """The process of transformers, ready to train."""
    setup = {
        "model": {
            "vocab_size": model.padded_vocabulary_size,
            "hidden_size": model.hidden_size,
            "intermediate_size": model.intermediate_size,
            "num_hidden_layers": model.num_layers,
            "num_attention_heads": model.num_heads,
            "num_key_value_heads": model.num_key_value_heads,
            "head_dim": model.head_size,
            "max_position_embeddings": model.max_positions,
            "tie_word_embeddings": model.tie_embeddings,
        },
        "rows": rows,
        "positions": positions,
        "threads": len(os.sched_getaffinity(0)),
    }
    command = [sys.executable, "-m", "seallm_jax.cli.bench_step_child"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(setup) + "\n")
            child.stdin.flush()
            yield child
        except BaseException:
            child.kill()
            raise
