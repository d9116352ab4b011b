"""Checkpoints of a training stage: Orbax, asynchronous, sharded, restorable on another mesh or number of hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.manifest import installed_versions
from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.training import partition
from seallm_jax.training.identity import Identity, as_json, check_identity, check_model, tokenizer_mismatch
from seallm_jax.training.state import TrainState
from seallm_jax.training.storage_errors import first_line, is_not_told_twice, storage_errors

FORMAT_VERSION = 1
PARAMETERS, PROGRESS, METADATA = "parameters", "progress", "metadata"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored checkpoint: the state, the rows consumed (the whole data state), and the telemetry's counters."""

    state: TrainState
    rows: int
    telemetry: Mapping[str, Any]


class DamagedCheckpointError(SeallmError):
    """A checkpoint cannot be read, or holds other values than were saved.

    Attributes:
      damage: which one, and what is wrong with it.
    """

    def __init__(self, path: pathlib.Path, reason: str):
        self.damage = f"checkpoint {path} is damaged ({reason})"
        super().__init__(f"{self.damage}; remove that directory to continue from the one before it")


class Checkpoints:
    """The checkpoints in one directory, named by step.

    A directory holds three items: `parameters` by name, `progress` (optimizer state, step, skipped updates) and
    `metadata` (JSON: identity, rows consumed, telemetry counters, checksums, versions). Half-written checkpoints have a
    temporary name and are not seen.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        identity: Identity,
        *,
        keep: int = 2,
        report: Callable[[str], None] = lambda line: None,
    ):
        """
        Args:
          directory: where they lie.
          identity: what they belong to.
          keep: how many of them.
          report: gets a line when a damaged one is set aside.
        """
        self.directory = directory.absolute()
        self._identity = identity
        self._report = report
        logging.getLogger("absl").addFilter(is_not_told_twice)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            single_host_load_and_broadcast=jax.process_count() > 1,  # all hold the same checkpoints for there
        )
        with storage_errors(f"cannot open the checkpoints in {self.directory}", "check the path and its permissions"):
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
        with storage_errors(
            f"cannot write checkpoint {self.directory / str(step)}", "free some space and run it again"
        ):
            _write(self._manager, self.directory, step, items, metadata)

    def restore(self, abstract: TrainState, initial: Callable[[Any], Any] | None = None) -> Restored:
        """Restores the newest checkpoint that is not damaged. Damaged ones are renamed, and reported.

        Args:
          abstract: ShapeDtypeStructs with the shardings that the arrays shall have, on any mesh.
          initial: abstract parameters -> those that the stage began with; needed for a stage with an adapter.

        Raises:
          SeallmError: there is no checkpoint, all are damaged, or the identity is another.
        """
        self.wait()
        while (step := self.latest_step) is not None:
            try:
                return self._restore_step(step, abstract, initial)
            except DamagedCheckpointError as damage:  # all processes are here, see `agreeing`
                if len(self._manager.all_steps()) == 1:
                    raise
                self._set_aside(step, damage)
        raise SeallmError(f"{self.directory} holds no checkpoint; train first or check the path")

    def _set_aside(self, step: int, error: DamagedCheckpointError) -> None:
        path = self.directory / str(step)
        target = path.with_name(f"damaged-{step}")
        if jax.process_index() == 0:
            with storage_errors(f"cannot rename {path}", "remove it"):
                shutil.rmtree(target, ignore_errors=True)
                path.rename(target)
        multihost_utils.sync_global_devices(f"checkpoint {step} set aside")
        self._manager.reload()
        self._report(f"{error.damage}; it is now {target}, and the run goes on from step {self.latest_step}")

    def _restore_step(self, step: int, abstract: TrainState, initial: Callable[[Any], Any] | None) -> Restored:
        path = self.directory / str(step)
        metadata = _read_metadata(path)
        check_identity(path, metadata["identity"], self._identity)
        parameters, progress = _split(abstract, self._identity)
        restored = _read_items(path, metadata, {PARAMETERS: parameters, PROGRESS: progress})
        state = _join(abstract, restored, self._identity)
        if self._identity.adapter is not None and initial is not None:
            state = dataclasses.replace(state, params=partition.merge(state.params, initial(abstract.params)))
        return Restored(state, metadata["rows"], metadata["telemetry"])

    def wait(self) -> None:
        """Waits until what was saved is complete on disk."""
        with storage_errors(f"cannot finish a checkpoint in {self.directory}", "free some space and run it again"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and releases the threads."""
        self.wait()
        self._manager.close()


def read_checkpoint_metadata(directory: pathlib.Path) -> dict[str, Any]:
    """Metadata of the newest checkpoint in `directory`. Raises SeallmError when there is none or it is damaged."""
    return _read_metadata(_newest(directory))


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
    with storage_errors(f"cannot write the parameters to {directory}", "free some space and run it again"):
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
      abstract: parameters as ShapeDtypeStructs with shardings, on any mesh; see `models.layout`. They are cast to its
        dtypes.
      model: the shape expected. The padded vocabulary size may differ from the one saved: rows of zeros come or go.
      tokenizer_digest: the tokenizer expected, if it matters.
      adapter: what was trained in place of the model; `abstract` then holds what `Identity.stored` tells.

    Raises:
      SeallmError: missing or damaged, another model, another tokenizer, or another adapter.
    """
    path = _newest(directory)
    metadata = _read_metadata(path)
    saved = metadata["identity"]
    check_model(path, saved["model"], model)
    if tokenizer_digest is not None and saved["tokenizer_digest"] != tokenizer_digest:
        raise SeallmError(tokenizer_mismatch(path, saved["tokenizer_digest"], tokenizer_digest))
    if saved.get("adapter") != (None if adapter is None else as_json(dataclasses.asdict(adapter))):
        raise SeallmError(
            f"checkpoint {path} holds {'a whole model' if saved.get('adapter') is None else 'only an adapter'}, or "
            "another one than expected; load it through the run directory of the stage that trained it"
        )
    as_saved = _with_dtype(to_names(abstract), jnp.dtype(saved.get("parameter_dtype", "float32")))
    restored = _read_items(path, metadata, {PARAMETERS: as_saved})
    return _cast_like(from_names(abstract, restored[PARAMETERS]), abstract)


def _with_dtype(abstract: Any, dtype: Any) -> Any:
    """Shapes of floating-point arrays in another dtype; others stay."""

    def change(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype if floating else leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(change, abstract)


def _cast_like(tree: Any, abstract: Any) -> Any:
    """Arrays in the dtypes of `abstract`; those that have them already stay the same arrays."""
    return jax.tree.map(lambda x, like: x if x.dtype == like.dtype else x.astype(like.dtype), tree, abstract)


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
    """Sum of all bit patterns: the same on every mesh, and with rows of zeros added."""

    def words(leaf: jax.Array) -> jax.Array:
        leaf = jax.device_put(leaf, jax.memory.Space.Device)  # moments may lie in the host's memory
        pattern = jnp.uint16 if leaf.dtype.itemsize == 2 else jnp.uint32
        return jnp.sum(jax.lax.bitcast_convert_type(leaf, pattern), dtype=jnp.uint32)

    return sum(map(words, jax.tree.leaves(tree)), start=jnp.zeros((), jnp.uint32))


def _newest(directory: pathlib.Path) -> pathlib.Path:
    """The newest checkpoint in a directory."""
    directory = directory.absolute()
    if not directory.is_dir():
        raise SeallmError(f"{directory} does not exist; run the training stage that writes it first")
    with contextlib.closing(
        ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(read_only=True))
    ) as manager:
        step = manager.latest_step()
    if step is None:
        raise SeallmError(f"{directory} holds no checkpoint; run the training stage that writes it first")
    return directory / str(step)


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
    with agreeing(path):
        restored = ocp.JsonCheckpointHandler().restore(epath.Path(path) / METADATA)
        version = restored["format"]
    if version != FORMAT_VERSION:
        raise SeallmError(f"checkpoint {path} has format {version}, this version of seallm_jax reads {FORMAT_VERSION}")
    return dict(restored)


def _read_items(path: pathlib.Path, metadata: Mapping[str, Any], items: Mapping[str, Any]) -> dict[str, Any]:
    # by the handler alone, whose processes do not wait for one another: one that finds damage would not be there.
    # not strict: the one shape that may differ is the padded vocabulary, which the caller has compared
    restored = {}
    with agreeing(path):
        for name, abstract in items.items():
            arguments = ocp.args.StandardRestore(abstract, strict=False)
            restored[name] = ocp.StandardCheckpointHandler().restore(epath.Path(path) / name, args=arguments)
        jax.block_until_ready(restored)
    for name, tree in restored.items():
        if int(_checksum(tree)) != metadata["checksums"][name]:
            raise DamagedCheckpointError(path, f"the checksum of {name} is wrong")
    return restored


@contextlib.contextmanager
def agreeing(path: pathlib.Path) -> Iterator[None]:
    """A checkpoint is damaged for all processes when one of them cannot read its part. All must come here."""
    damage: DamagedCheckpointError | None = None
    try:
        yield
    except Exception as error:  # tensorstore and Orbax raise many kinds, bare Exception among them
        damage = DamagedCheckpointError(path, first_line(error))
        damage.__cause__ = error
    if jax.process_count() > 1 and multihost_utils.process_allgather(np.array(damage is not None)).any():
        damage = damage or DamagedCheckpointError(path, "another process cannot read it")
    if damage is not None:
        raise damage


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
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # of all processes, which write to one disk
    free = _least(shutil.disk_usage(directory).free)
    if free < needed:
        raise SeallmError(
            f"cannot write a checkpoint to {directory}: it takes up to {needed / 1e6:,.1f} MB and the disk has "
            f"{free / 1e6:,.1f} MB left; free some space and run the same command again, nothing is lost"
        )


def _least(value: int) -> int:
    """The smallest of the values that the processes have, so that all of them go on alike."""
    return value if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.float32(value)).min())
