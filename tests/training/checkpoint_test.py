"""What is saved comes back, on any mesh; what is missing, damaged or another's is an error that says so."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, ModelConfig, OptimizerConfig, RopeConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.training.checkpoint import (
    Checkpoints,
    DamagedCheckpointError,
    agreeing,
    from_names,
    read_checkpoint_metadata,
    restore_parameters,
    to_names,
)
from seallm_jax.training.identity import Identity
from seallm_jax.training.optimizer import build_optimizer
from seallm_jax.training.state import TrainState, abstract_state, shardings_of

MODEL = ModelConfig(vocabulary_size=10, padded_vocabulary_size=16)
IDENTITY = Identity(MODEL, tokenizer_digest="abc", curriculum_digest="order", batch_rows=4, seed=1)
OPTIMIZER = build_optimizer(OptimizerConfig(), 1e-3)


def abstract_parameters(mesh, rows=16):
    rules = ShardingRules()
    table = jax.ShapeDtypeStruct((rows, 8), jnp.float32, sharding=rules.sharding(mesh, "vocabulary", "hidden"))
    scale = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=rules.sharding(mesh, "norm"))
    return {"embedding": {"kernel": table}, "final_norm": {"scale": scale}}


def mesh_of(count, **axes):
    if jax.device_count() < count:
        pytest.skip(f"needs {count} emulated devices")
    return build_mesh(MeshConfig(**axes), jax.devices()[:count])


def make_state(mesh, value=1.0):
    abstract = abstract_state(abstract_parameters(mesh), OPTIMIZER, mesh)
    table = np.zeros((16, 8), np.float32)
    table[:10] = value + np.arange(80).reshape(10, 8) / 7
    host = {"embedding": {"kernel": table}, "final_norm": {"scale": np.full(8, value, np.float32)}}
    params = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), host, abstract.params)
    state = TrainState.create(params, OPTIMIZER, shardings_of(abstract))
    return dataclasses.replace(state, step=state.step + 3, skipped=state.skipped + 1), abstract


def save(directory, steps=(3,), identity=IDENTITY, **options):
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    checkpoints = Checkpoints(directory, identity, **options)
    for step in steps:
        state, abstract = make_state(mesh, float(step))
        checkpoints.save(state, step=step, rows=4 * step, telemetry={"tokens": 7})
    checkpoints.close()
    return state, abstract


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_round_trip_keeps_the_newest(tmp_path):
    state, abstract = save(tmp_path / "c", steps=(1, 2, 3), keep=2)
    checkpoints = Checkpoints(tmp_path / "c", IDENTITY, keep=2)
    assert checkpoints.latest_step == 3
    restored = checkpoints.restore(abstract)
    checkpoints.close()
    assert_equal(restored.state, state)
    assert (restored.rows, restored.telemetry) == (12, {"tokens": 7})
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["2", "3"]
    metadata = read_checkpoint_metadata(tmp_path / "c")
    assert metadata["identity"]["curriculum_digest"] == "order" and "jax" in metadata["versions"]


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"fsdp": 2, "tensor": 4}])
def test_restore_on_another_mesh(tmp_path, axes):
    state, _ = save(tmp_path)
    _, abstract = make_state(mesh_of(8, **axes))
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    restored = checkpoints.restore(abstract).state
    checkpoints.close()
    assert_equal(restored, state)
    for leaf, like in zip(jax.tree.leaves(restored), jax.tree.leaves(abstract), strict=True):
        assert leaf.sharding == like.sharding


@pytest.mark.parametrize("rows", [12, 32])
def test_the_padded_vocabulary_may_change(tmp_path, rows):
    state, _ = save(tmp_path)
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    model = dataclasses.replace(MODEL, padded_vocabulary_size=rows)
    restored = restore_parameters(tmp_path, abstract_parameters(mesh, rows), model, tokenizer_digest="abc")
    table = np.asarray(restored["embedding"]["kernel"])
    np.testing.assert_array_equal(table[:10], np.asarray(state.params["embedding"]["kernel"])[:10])
    assert table.shape == (rows, 8) and not table[10:].any()
    assert_equal(restored["final_norm"], state.params["final_norm"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curriculum_digest": "other"}, r"order of the training rows: curriculum_digest is order, this run has other"),
        ({"seed": 2}, r"seed is 1, this run has 2"),
        ({"trainable": ("a.*",)}, r"trainable parameters: trainable is \['\*'\], this run has \['a.\*'\]"),
        ({"optimizer": "lion"}, r"another optimizer: optimizer is adamw, this run has lion"),
        ({"parameter_dtype": "bfloat16"}, r"parameter_dtype is float32, this run has bfloat16"),
        ({"batch_rows": 8}, r"batch_rows is 4, this run has 8"),
        ({"tokenizer_digest": "xyz"}, r"another tokenizer \(digest abc, this run has xyz\)"),
        ({"model": dataclasses.replace(MODEL, vocabulary_size=11)}, r"vocabulary_size is 10, this run has 11"),
        ({"model": dataclasses.replace(MODEL, num_layers=9)}, r"num_layers is 4, this run has 9"),
    ],
)
def test_another_run_is_refused(tmp_path, change, message):
    _, abstract = save(tmp_path)
    checkpoints = Checkpoints(tmp_path, dataclasses.replace(IDENTITY, **change))
    with pytest.raises(SeallmError, match=message) as error:
        checkpoints.restore(abstract)
    checkpoints.close()
    assert str(tmp_path / "3") in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_of_before_model_families_is_read(tmp_path):
    _, abstract = save(tmp_path)
    path = tmp_path / "3" / "metadata" / "metadata"
    metadata = json.loads(path.read_text())
    model, identity = metadata["identity"]["model"], metadata["identity"]
    old = {"vocabulary_size", "padded_vocabulary_size", "hidden_size", "num_layers", "norm_epsilon", "tie_embeddings"}
    identity["model"] = {key: model[key] for key in old} | {"rope_theta": 10000.0}
    for key in ("trainable", "adapter", "optimizer", "parameter_dtype", "state_dtype"):
        del identity[key]
    path.write_text(json.dumps(metadata))
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    assert checkpoints.restore(abstract).rows == 12
    checkpoints.close()
    rope = RopeConfig(theta=5e5)
    with pytest.raises(SeallmError, match=r"rope is \{'type': 'default', 'theta': 10000.0, .*this run has .*500000.0"):
        restore_parameters(tmp_path, abstract.params, dataclasses.replace(MODEL, rope=rope))


def test_parameters_of_another_tokenizer_or_model_are_refused(tmp_path):
    _, abstract = save(tmp_path)
    with pytest.raises(SeallmError, match="another tokenizer"):
        restore_parameters(tmp_path, abstract.params, MODEL, tokenizer_digest="xyz")
    with pytest.raises(SeallmError, match="vocabulary_size is 10, this run has 12"):
        restore_parameters(tmp_path, abstract.params, dataclasses.replace(MODEL, vocabulary_size=12))


def test_missing(tmp_path):
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    with pytest.raises(SeallmError, match=r"nowhere does not exist; run the training stage"):
        restore_parameters(tmp_path / "nowhere", abstract_parameters(mesh), MODEL)
    with pytest.raises(SeallmError, match=r"holds no checkpoint; run the training stage"):
        restore_parameters(tmp_path, abstract_parameters(mesh), MODEL)
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    assert checkpoints.latest_step is None
    with pytest.raises(SeallmError, match="holds no checkpoint"):
        checkpoints.restore(abstract_state(abstract_parameters(mesh), OPTIMIZER, mesh))
    checkpoints.close()


def data_files(directory: pathlib.Path) -> list[pathlib.Path]:
    return list((directory / "parameters").glob("**/d/*"))


def truncate(step: pathlib.Path) -> None:
    for path in data_files(step):
        os.truncate(path, path.stat().st_size // 2)


def flip_bits(step: pathlib.Path) -> None:
    for path in data_files(step):
        data = bytearray(path.read_bytes())
        for index in range(len(data) // 4, len(data) - 8, 16):
            data[index] ^= 0x10
        path.write_bytes(data)


def remove_metadata(step: pathlib.Path) -> None:
    (step / "metadata" / "metadata").unlink()


def spoil_metadata(step: pathlib.Path) -> None:
    (step / "metadata" / "metadata").write_text('{"format": 1, "id')


def remove_arrays(step: pathlib.Path) -> None:
    shutil.rmtree(step / "parameters")


def tear(step: pathlib.Path) -> None:
    """As if the machine had gone while files were written: some are empty, some are not there."""
    for number, path in enumerate(sorted(path for path in step.glob("**/*") if path.is_file())):
        path.write_bytes(b"") if number % 2 else path.unlink()


DAMAGE = [truncate, flip_bits, remove_metadata, spoil_metadata, remove_arrays, tear]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path, damage):
    _, abstract = save(tmp_path, steps=(2, 3))
    damage(tmp_path / "3")
    said = []
    checkpoints = Checkpoints(tmp_path, IDENTITY, report=said.append)
    restored = checkpoints.restore(abstract)
    expected, _ = make_state(build_mesh(MeshConfig(), jax.devices()[:1]), 2.0)
    assert restored.rows == 8
    assert_equal(restored.state.params, expected.params)
    (line,) = said
    assert f"checkpoint {tmp_path / '3'} is damaged" in line and "\n" not in line
    assert line.endswith(f"it is now {tmp_path / 'damaged-3'}, and the run goes on from step 2")
    assert (tmp_path / "damaged-3").is_dir()
    state, _ = make_state(build_mesh(MeshConfig(), jax.devices()[:1]), 3.0)
    checkpoints.save(state, step=3, rows=12, telemetry={})  # the same step again
    checkpoints.close()
    assert read_checkpoint_metadata(tmp_path)["step"] == 3


@pytest.mark.parametrize("damage", [truncate, remove_metadata])
def test_damage_without_another_is_reported_with_the_path_and_the_way_out(tmp_path, damage):
    _, abstract = save(tmp_path, steps=(3,))
    damage(tmp_path / "3")
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    with pytest.raises(SeallmError, match=r"is damaged .* remove that directory to continue") as error:
        checkpoints.restore(abstract)
    checkpoints.close()
    assert str(tmp_path / "3") in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "3").is_dir()


@pytest.mark.parametrize("found_here", [False, True])
def test_what_one_process_finds_damaged_is_damaged_for_all(monkeypatch, found_here):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda found: np.array([found, not found_here]))
    with pytest.raises(DamagedCheckpointError) as raised, agreeing(pathlib.Path("steps/3")):
        if found_here:
            raise ValueError("bad bytes\nand more")
    reason = "bad bytes" if found_here else "another process cannot read it"
    assert raised.value.damage == f"checkpoint steps/3 is damaged ({reason})"


def test_a_checkpoint_that_was_never_finished_is_not_seen(tmp_path):
    _, abstract = save(tmp_path, steps=(2,))
    shutil.copytree(tmp_path / "2", tmp_path / "3.orbax-checkpoint-tmp-0")
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    assert checkpoints.latest_step == 2 and checkpoints.restore(abstract).rows == 8
    checkpoints.close()


def test_another_run_is_no_damage(tmp_path):
    """Nothing is renamed, and no older checkpoint taken, for a mistake in the configuration."""
    _, abstract = save(tmp_path, steps=(2, 3))
    checkpoints = Checkpoints(tmp_path, dataclasses.replace(IDENTITY, seed=2))
    with pytest.raises(SeallmError, match="seed is 1, this run has 2"):
        checkpoints.restore(abstract)
    checkpoints.close()
    assert (tmp_path / "3").is_dir()


def narrow(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=leaf.sharding), tree)


def test_parameters_are_cast_from_and_to_bfloat16(tmp_path):
    state, abstract = save(tmp_path / "wide")
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    found = restore_parameters(tmp_path / "wide", narrow(abstract.params), MODEL)
    assert_equal(found, expected)
    state = dataclasses.replace(state, params=expected)
    identity = dataclasses.replace(IDENTITY, parameter_dtype="bfloat16")
    checkpoints = Checkpoints(tmp_path / "narrow", identity)
    checkpoints.save(state, step=1, rows=4, telemetry={})
    half = dataclasses.replace(abstract, params=narrow(abstract.params))
    assert_equal(checkpoints.restore(half).state, state)
    checkpoints.close()
    wide = restore_parameters(tmp_path / "narrow", abstract.params, MODEL)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype(jnp.float32)}
    assert_equal(wide, jax.tree.map(lambda x: x.astype(jnp.float32), expected))


def test_a_wrong_value_that_still_decodes_is_found_by_the_checksum(tmp_path):
    _, abstract = save(tmp_path)
    path = tmp_path / "3" / "metadata" / "metadata"
    checksum = read_checkpoint_metadata(tmp_path)["checksums"]["parameters"]
    path.write_text(path.read_text().replace(str(checksum), str(checksum ^ 1)))
    with pytest.raises(SeallmError, match="the checksum of parameters is wrong"):
        restore_parameters(tmp_path, abstract.params, MODEL)


def test_names_do_not_depend_on_the_classes_that_hold_the_arrays():
    state = OPTIMIZER.init({"head": {"kernel": jnp.ones((2, 2))}})
    names = to_names(state)
    assert all(isinstance(name, str) for name in names)
    assert_equal(from_names(state, names), state)
    assert jax.tree.structure(from_names(state, names)) == jax.tree.structure(state)


def test_a_full_disk_is_one_line_and_keeps_what_is_there(tmp_path, monkeypatch):
    save(tmp_path / "c", steps=(1,))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=100))
    with pytest.raises(SeallmError, match=r"it takes up to 0\.0 MB and the disk has 0\.0 MB left; free some space"):
        save(tmp_path / "c", steps=(2,))
    monkeypatch.undo()
    checkpoints = Checkpoints(tmp_path / "c", IDENTITY)
    assert checkpoints.latest_step == 1
    checkpoints.close()
