"""Checkpoints of a training stage: Orbax, asynchronous, sharded, restorable on another mesh or number of hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.manifest import installed_versions
from seallm_jax.core.model_config import stored_model
from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.training import partition
from seallm_jax.training.state import TrainState

FORMAT_VERSION = 1
PARAMETERS, PROGRESS, METADATA = "parameters", "progress", "metadata"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to. A run continues only from a checkpoint with the same identity.

    Attributes:
      model: shape of the model. `padded_vocabulary_size` may differ, as it does between meshes.
      tokenizer_digest: digest of the tokenizer that made the rows.
      curriculum_digest: digest of the order of the rows.
      batch_rows: rows per step.
      seed: seed of the run.
      trainable: patterns of the parameters that have optimizer state.
      adapter: what is trained in place of the model. Checkpoints then hold what it brings in and what is trained, and
        not the frozen rest, which is that of the model that the stage began with.
    """

    model: ModelConfig
    tokenizer_digest: str
    curriculum_digest: str
    batch_rows: int
    seed: int
    trainable: tuple[str, ...] = ("*",)
    adapter: AdapterConfig | None = None

    def stored(self, parameters: Any) -> Any:
        """The part of a tree of parameters that checkpoints hold."""
        if self.adapter is None:
            return parameters
        return partition.split(parameters, (*self.trainable, *self.adapter.parameters))[0]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored checkpoint: the state, the rows consumed (the whole data state), and the telemetry's counters."""

    state: TrainState
    rows: int
    telemetry: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in one directory, named by step.

    A directory holds three items: `parameters` by name, `progress` (optimizer state, step, skipped updates) and
    `metadata` (JSON: identity, rows consumed, telemetry counters, checksums, versions). Half-written checkpoints have a
    temporary name and are not seen.
    """

    def __init__(self, directory: pathlib.Path, identity: Identity, *, keep: int = 2):
        self.directory = directory.absolute()
        self._identity = identity
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        with _storage_errors(f"cannot open the checkpoints in {self.directory}", "check the path and its permissions"):
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, *, step: int, rows: int, telemetry: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint and returns once the arrays are copied off the device."""
        parameters, progress = _split(state, self._identity)
        items = {PARAMETERS: parameters, PROGRESS: progress}
        metadata = _metadata(items, self._identity, step=step, rows=rows, telemetry=telemetry)
        with _storage_errors(
            f"cannot write checkpoint {self.directory / str(step)}", "free some space and run it again"
        ):
            _write(self._manager, self.directory, step, items, metadata)

    def restore(self, abstract: TrainState, initial: Callable[[Any], Any] | None = None) -> Restored:
        """Restores the newest checkpoint.

        Args:
          abstract: ShapeDtypeStructs with the shardings that the arrays shall have, on any mesh.
          initial: abstract parameters -> those that the stage began with; needed for a stage with an adapter.

        Raises:
          SeallmError: there is no checkpoint, it is damaged, or its identity is another.
        """
        step = self.latest_step
        if step is None:
            raise SeallmError(f"{self.directory} holds no checkpoint; train first or check the path")
        path = self.directory / str(step)
        metadata = _read_metadata(self._manager, path, step)
        _check_identity(path, metadata["identity"], self._identity)
        parameters, progress = _split(abstract, self._identity)
        restored = _read_items(self._manager, path, step, metadata, {PARAMETERS: parameters, PROGRESS: progress})
        state = _join(abstract, restored, self._identity)
        if self._identity.adapter is not None and initial is not None:
            state = dataclasses.replace(state, params=partition.merge(state.params, initial(abstract.params)))
        return Restored(state, metadata["rows"], metadata["telemetry"])

    def wait(self) -> None:
        """Waits until what was saved is complete on disk."""
        with _storage_errors(f"cannot finish a checkpoint in {self.directory}", "free some space and run it again"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and releases the threads."""
        self.wait()
        self._manager.close()


def read_checkpoint_metadata(directory: pathlib.Path) -> dict[str, Any]:
    """Metadata of the newest checkpoint in `directory`. Raises SeallmError when there is none or it is damaged."""
    with _reader(directory) as (manager, path, step):
        return _read_metadata(manager, path, step)


def save_parameters(
    directory: pathlib.Path, parameters: Any, model: ModelConfig, *, tokenizer_digest: str, seed: int = 0
) -> None:
    """Writes parameters alone as checkpoint 0, for `restore_parameters`: an imported or a resized model.

    Raises:
      SeallmError: the disk is full or the path cannot be written.
    """
    directory = directory.absolute()
    identity = Identity(model, tokenizer_digest, curriculum_digest="", batch_rows=0, seed=seed)
    items = {PARAMETERS: to_names(parameters)}
    metadata = _metadata(items, identity, step=0, rows=0, telemetry={})
    with _storage_errors(f"cannot write the parameters to {directory}", "free some space and run it again"):
        directory.mkdir(parents=True, exist_ok=True)
        manager = ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(max_to_keep=1))
        _write(manager, directory, 0, items, metadata)
        manager.wait_until_finished()
        manager.close()


def restore_parameters(
    directory: pathlib.Path,
    abstract: Any,
    model: ModelConfig,
    *,
    tokenizer_digest: str | None = None,
    adapter: AdapterConfig | None = None,
) -> Any:
    """Parameters alone, from the newest checkpoint in `directory`, for the next stage, evaluation or export.

    Args:
      directory: where `Checkpoints` wrote.
      abstract: parameters as ShapeDtypeStructs with shardings, on any mesh; see `models.layout`.
      model: the shape expected. The padded vocabulary size may differ from the one saved: rows of zeros come or go.
      tokenizer_digest: the tokenizer expected, if it matters.
      adapter: what was trained in place of the model; `abstract` then holds what `Identity.stored` tells.

    Raises:
      SeallmError: missing or damaged, another model, another tokenizer, or another adapter.
    """
    with _reader(directory) as (manager, path, step):
        metadata = _read_metadata(manager, path, step)
        saved = metadata["identity"]
        _check_model(path, saved["model"], model)
        if tokenizer_digest is not None and saved["tokenizer_digest"] != tokenizer_digest:
            raise SeallmError(_tokenizer_mismatch(path, saved["tokenizer_digest"], tokenizer_digest))
        if saved.get("adapter") != (None if adapter is None else _as_json(dataclasses.asdict(adapter))):
            raise SeallmError(
                f"checkpoint {path} holds {'a whole model' if saved.get('adapter') is None else 'only an adapter'}, or "
                "another one than expected; load it through the run directory of the stage that trained it"
            )
        restored = _read_items(manager, path, step, metadata, {PARAMETERS: to_names(abstract)})
        return from_names(abstract, restored[PARAMETERS])


def to_names(tree: Any) -> dict[str, Any]:
    """A pytree as nested dictionaries named by path, independent of the classes that hold it."""
    names: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        *parents, last = _path_names(path)
        node = names
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return names


def from_names(tree: Any, names: Mapping[str, Any]) -> Any:
    """The inverse of `to_names`: `tree`'s structure with the leaves of `names`."""

    def look_up(path: tuple[Any, ...], _: Any) -> Any:
        node: Any = names
        for name in _path_names(path):
            node = node[name]
        return node

    return jax.tree_util.tree_map_with_path(look_up, tree)


def _path_names(path: tuple[Any, ...]) -> list[str]:
    names = [str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path]
    return names[:-1] if len(names) > 1 and names[-1] == "value" else names  # Flax variables hold their array there


def _split(state: TrainState, identity: Identity) -> tuple[dict[str, Any], dict[str, Any]]:
    progress = {"optimizer": to_names(state.optimizer_state), "step": state.step, "skipped": state.skipped}
    return to_names(identity.stored(state.params)), progress


def _join(abstract: TrainState, restored: Mapping[str, Any], identity: Identity) -> TrainState:
    progress = restored[PROGRESS]
    return dataclasses.replace(
        abstract,
        params=from_names(identity.stored(abstract.params), restored[PARAMETERS]),
        optimizer_state=from_names(abstract.optimizer_state, progress["optimizer"]),
        step=progress["step"],
        skipped=progress["skipped"],
    )


@jax.jit
def _checksum(tree: Any) -> jax.Array:
    """Sum of all 32-bit patterns: the same on every mesh, and with rows of zeros added."""
    words = [
        jnp.sum(jax.lax.bitcast_convert_type(leaf, jnp.uint32), dtype=jnp.uint32) for leaf in jax.tree.leaves(tree)
    ]
    return sum(words, start=jnp.zeros((), jnp.uint32))


@contextlib.contextmanager
def _reader(directory: pathlib.Path) -> Iterator[tuple[ocp.CheckpointManager, pathlib.Path, int]]:
    directory = directory.absolute()
    if not directory.is_dir():
        raise SeallmError(f"{directory} does not exist; run the training stage that writes it first")
    manager = ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(read_only=True))
    try:
        step = manager.latest_step()
        if step is None:
            raise SeallmError(f"{directory} holds no checkpoint; run the training stage that writes it first")
        yield manager, directory / str(step), step
    finally:
        manager.close()


def _read_metadata(manager: ocp.CheckpointManager, path: pathlib.Path, step: int) -> dict[str, Any]:
    with _damage_errors(path):
        restored = manager.restore(step, args=ocp.args.Composite(**{METADATA: ocp.args.JsonRestore()}))[METADATA]
        version = restored["format"]
    if version != FORMAT_VERSION:
        raise SeallmError(f"checkpoint {path} has format {version}, this version of seallm_jax reads {FORMAT_VERSION}")
    return restored


def _read_items(
    manager: ocp.CheckpointManager, path: pathlib.Path, step: int, metadata: Mapping[str, Any], items: Mapping[str, Any]
) -> dict[str, Any]:
    # not strict: the one shape that may differ is the padded vocabulary, which the caller has compared
    arguments = {name: ocp.args.StandardRestore(abstract, strict=False) for name, abstract in items.items()}
    with _damage_errors(path):
        composite = manager.restore(step, args=ocp.args.Composite(**arguments))
        restored = {name: composite[name] for name in items}
    for name, tree in restored.items():
        if int(_checksum(tree)) != metadata["checksums"][name]:
            raise SeallmError(_damage(path, f"the checksum of {name} is wrong"))
    return restored


def _check_identity(path: pathlib.Path, saved: Mapping[str, Any], expected: Identity) -> None:
    _check_model(path, saved["model"], expected.model)
    if saved["tokenizer_digest"] != expected.tokenizer_digest:
        raise SeallmError(_tokenizer_mismatch(path, saved["tokenizer_digest"], expected.tokenizer_digest))
    for key, meaning in (
        ("curriculum_digest", "order of the training rows"),
        ("batch_rows", "number of rows per step"),
        ("seed", "seed"),
        ("trainable", "set of trainable parameters"),
        ("adapter", "adapter"),
    ):
        value = _as_json(dataclasses.asdict(expected)[key])
        found = saved.get(key, ["*"] if key == "trainable" else None)  # older checkpoints do not say
        if found != value:
            raise SeallmError(
                f"checkpoint {path} was trained with another {meaning}: {key} is {found}, this run has "
                f"{value}; go back to the old configuration, or remove {path.parent} to train again"
            )


def _check_model(path: pathlib.Path, saved: Mapping[str, Any], expected: ModelConfig) -> None:
    saved = _as_json(stored_model(saved))
    for key, value in _as_json(dataclasses.asdict(expected)).items():
        if key not in ("padded_vocabulary_size", "initializer_range") and saved[key] != value:
            raise SeallmError(
                f"checkpoint {path} holds another model: {key} is {saved[key]}, this run has {value}; "
                f"use the configuration and tokenizer it was trained with, or remove {path.parent} to train again"
            )


def _as_json(value: Any) -> Any:
    """`value` as it comes back from a JSON file: tuples are lists."""
    return json.loads(json.dumps(value))


def _tokenizer_mismatch(path: pathlib.Path, saved: str, expected: str) -> str:
    return (
        f"checkpoint {path} was trained with another tokenizer (digest {saved[:12]}, this run has {expected[:12]}); "
        f"use the tokenizer it was trained with, or remove {path.parent} to train again"
    )


def _damage(path: pathlib.Path, reason: str) -> str:
    return f"checkpoint {path} is damaged ({reason}); remove that directory to continue from the one before it"


@contextlib.contextmanager
def _damage_errors(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tensorstore and Orbax raise many kinds, bare Exception among them
        raise SeallmError(_damage(path, _first_line(error))) from error


def _metadata(
    items: Mapping[str, Any], identity: Identity, *, step: int, rows: int, telemetry: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "step": step,
        "rows": rows,
        "identity": dataclasses.asdict(identity),
        "telemetry": dict(telemetry),
        "checksums": {name: int(_checksum(tree)) for name, tree in items.items()},
        "versions": installed_versions(),
    }


def _write(
    manager: ocp.CheckpointManager,
    directory: pathlib.Path,
    step: int,
    items: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> None:
    """Starts to write a checkpoint, if the disk has room for it."""
    _check_space(directory, items)
    saved = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
    manager.save(step, args=ocp.args.Composite(**saved, **{METADATA: ocp.args.JsonSave(metadata)}), force=True)


def _check_space(directory: pathlib.Path, tree: Any) -> None:
    """Refuses to begin what cannot be finished: a disk that fills up while threads write ends in many tracebacks."""
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards if shard.replica_id == 0]
    needed = sum(shard.data.nbytes for shard in shards)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise SeallmError(
            f"cannot write a checkpoint to {directory}: it takes up to {needed / 1e6:,.1f} MB and the disk has "
            f"{free / 1e6:,.1f} MB left; free some space and run the same command again, nothing is lost"
        )


@contextlib.contextmanager
def _storage_errors(what: str, way_out: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise SeallmError(f"{what}: {_first_line(error)}; {way_out}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
