"""Layers and neurons trained alone: what is held keeps its bits, the rest moves as with a zeroed gradient."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from partition_test import by_path
from small_job import LANGUAGES, MODEL, VOCABULARY, FakeSource, Settings, iterate, make_job

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import AdapterConfig, MeshConfig, OptimizerConfig, TrainConfig
from seallm_jax.models.layout import abstract_decoder, initialize
from seallm_jax.models.neurons import Neurons
from seallm_jax.training import partition
from seallm_jax.training.distributed import global_batch, local_rows
from seallm_jax.training.optimizer import multiplied
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import build_step
from seallm_jax.training.subset import Subset, trained_patterns

ROWS, STEPS = 8, 3
CHOSEN = Neurons({"mlp": ((3, 30), ()), "attention.value": ((), (0, 5))})
PLAIN = OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_fraction=0, weight_decay=0.3)


def trained(optimizer, *, axes=None):
    """(parameters before, after, gradient norms)."""
    mesh = build_mesh(MeshConfig(**axes or {}), jax.devices()[: 8 if axes else 1])
    train = TrainConfig(batch_rows=ROWS, compute_dtype="float32", optimizer=optimizer)
    program = build_step(MODEL, train, mesh, sequence_length=24, total_steps=STEPS, num_languages=len(LANGUAGES))
    params = nnx.state(initialize(MODEL, seed=0, mesh=mesh))
    before = by_path(params)
    state = TrainState.create(params, program.optimizer, shardings_of(program.abstract_state), program.trainable)
    rows, norms = local_rows(program.abstract_batch), []
    for batch in FakeSource(ROWS * STEPS, ROWS).batches(0, rows):
        state, metrics = program.run(state, global_batch(batch, rows, program.abstract_batch))
        norms.append(float(metrics.gradient_norm))
    return before, by_path(state.params), norms


def changed(before, after):
    """Where bits differ, by path; arrays that are as they were are left out."""
    found = {name: before[name].view(np.uint32) != value.view(np.uint32) for name, value in after.items()}
    return {name: mask for name, mask in found.items() if mask.any()}


@pytest.fixture(scope="module")
def neurons_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("neurons") / "neurons.json"
    CHOSEN.write(path, languages=["th"])
    return str(path)


@pytest.fixture(scope="module")
def optimizer(neurons_file):
    patterns = ("layers.mlp.*", "layers.1.attention.*", "layers.:1.attention.key.*", "layers.0.mlp_norm.*", "head.*")
    return dataclasses.replace(PLAIN, neurons=neurons_file, trainable=patterns, multipliers={"layers.0.*": 0.5})


@pytest.fixture(scope="module")
def one_device(optimizer):
    return trained(optimizer)


def test_only_the_layers_and_neurons_named_move(one_device):
    moved = changed(*one_device[:2])
    expected = {path: np.zeros_like(mask) for path, mask in moved.items()}
    expected["layers.mlp.gate.kernel"][0, :, [3, 30]] = True
    expected["layers.mlp.up.kernel"][0, :, [3, 30]] = True
    expected["layers.mlp.down.kernel"][0, [3, 30], :] = True
    expected["layers.attention.value.kernel"][1, :, 0, 0] = True  # heads of 4 channels
    expected["layers.attention.value.kernel"][1, :, 1, 1] = True
    expected["layers.attention.query.kernel"][1] = expected["layers.attention.output.kernel"][1] = True
    expected["layers.attention.key.kernel"][:] = expected["layers.mlp_norm.scale"][0] = True
    expected["head.kernel"][:VOCABULARY] = True
    for path, mask in moved.items():
        np.testing.assert_array_equal(mask, expected[path], err_msg=path)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")
def test_sharded_is_unsharded(optimizer, one_device):
    before, one, norms = one_device
    _, eight, sharded_norms = trained(optimizer, axes={"fsdp": 4, "tensor": 2})
    np.testing.assert_allclose(sharded_norms, norms, rtol=2e-5)
    assert changed(before, one).keys() == changed(before, eight).keys()
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, atol=2e-4, err_msg=name)


def test_without_patterns_the_projections_of_the_neurons_are_trained(neurons_file):
    _, params = abstract_decoder(MODEL)
    neurons, train = Neurons.read(neurons_file), TrainConfig(optimizer=OptimizerConfig(neurons=neurons_file))
    expected = [f"layers.{name}.kernel" for name in ("attention.value", "mlp.down", "mlp.gate", "mlp.up")]
    assert list(trained_patterns(train, params, neurons)) == expected


def test_multipliers_of_layers_scale_the_update():
    multipliers = {"layers.*": 3.0, "layers.1.*": 0.5, "layers.1.mlp.up.kernel": 2.0, "layers.-2.mlp.*": 4.0}
    updates = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), abstract_decoder(MODEL)[1])
    for path, value in by_path(multiplied(updates, multipliers)).items():
        expected = [1.0]
        if path.startswith("layers."):
            expected = [4.0 if ".mlp." in path else 3.0, 2.0 if path == "layers.mlp.up.kernel" else 0.5]
        np.testing.assert_array_equal(value.reshape(len(expected), -1).T, [expected] * (value.size // len(expected)))


def test_another_choice_of_neurons_does_not_continue_a_checkpoint(tmp_path, neurons_file):
    def job(path):
        made = make_job(Settings(directory=str(tmp_path / "run"), steps=2))
        optimizer = dataclasses.replace(made.train.optimizer, neurons=path)
        return dataclasses.replace(made, train=dataclasses.replace(made.train, optimizer=optimizer))

    list(iterate(job(neurons_file)))
    other = tmp_path / "other.json"
    Neurons({"mlp": ((1,), (2,))}).write(other)
    with pytest.raises(SeallmError, match="another (set of trainable parameters|choice of neurons)"):
        list(iterate(job(str(other))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainable": ("layers.2.mlp.*",)}, r"optimizer.trainable: 'layers.2.mlp.\*' names layers .* layers 0 to 1"),
        ({"trainable": ("layers.1:1.*",)}, r"names layers that this model has not; there are layers 0 to 1"),
        ({"trainable": ("layers.0.mpl.*",)}, r"'layers.0.mpl.\*' matches no parameter; there are "),
        ({"multipliers": {"layers.-3.*": 2.0}}, r"optimizer.multipliers: 'layers.-3.\*' names layers"),
        ({"neurons": "nowhere.json"}, "cannot read the file of neurons nowhere.json: No such file"),
        ({"neurons": __file__}, "is no file of neurons .*`seallm neurons` writes one"),
        ({"neurons": {"mlp": ((1,),)}}, "for 1 layers, this model has 2"),
        ({"neurons": {"mlp": ((1,), (32,))}}, "mlp neuron 32 in layer 1, this model has 32"),
        ({"neurons": {"heads": ((1,), (2,))}}, "neurons of kind 'heads'; there are mlp, "),
        ({"neurons": {"mlp": ((), ())}}, "names no neuron of what optimizer.trainable = .* trains"),
        ({"neurons": CHOSEN.chosen, "trainable": ("head.kernel",)}, "names no neuron of .* = head.kernel trains"),
    ],
)
def test_bad_choices_are_one_error(tmp_path, change, message):
    if isinstance(change.get("neurons"), dict):
        Neurons(change["neurons"]).write(tmp_path / "file.json")
        change = change | {"neurons": str(tmp_path / "file.json")}
    train = TrainConfig(batch_rows=8, optimizer=OptimizerConfig(**change))
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    with pytest.raises(UsageError, match=message) as error:
        build_step(MODEL, train, mesh, sequence_length=24, total_steps=2, num_languages=2)
    assert "\n" not in str(error.value)


def test_an_adapter_and_neurons_exclude_each_other():
    with pytest.raises(ValueError, match=r"optimizer.neurons.*an adapter is trained in place"):
        TrainConfig(adapter=AdapterConfig(), optimizer=OptimizerConfig(neurons="a.json"))


@given(
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(-7, 7)),
    st.one_of(st.none(), st.integers(-7, 7)),
    st.booleans(),
)
def test_layers_are_counted_as_python_does(layers, start, stop, one):
    if one and start is None:
        return
    pattern = (
        f"layers.{start}.mlp.*"
        if one
        else f"layers.{'' if start is None else start}:{'' if stop is None else stop}.mlp.*"
    )
    numbers = list(range(layers))
    try:
        expected = [numbers[start]] if one else numbers[start:stop]
    except IndexError:
        expected = []
    inside = all(n is None or -layers <= n <= layers for n in (start, None if one else stop))
    if expected and inside:
        assert numbers[partition.layers_of(pattern, layers)] == expected
    else:
        with pytest.raises(ValueError, match=f"0 to {layers - 1}"):
            partition.layers_of(pattern, layers)


def test_all_of_everything_is_no_subset():
    _, params = abstract_decoder(MODEL)
    whole = Neurons({"mlp": (tuple(range(32)),) * 2})
    assert Subset.of(("*", "layers.0.*"), None, params) is None
    assert Subset.of(("*",), whole, params) is None
