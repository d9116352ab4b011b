"""Memory and time of a training step by rules of thumb: which of many settings are worth the compiler's time."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from seallm_jax.core.peak_flops import peak_flops
from seallm_jax.core.schema import MeshConfig, ModelConfig, PackingConfig, TrainConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.models.flops import training_flops
from seallm_jax.models.layout import abstract_decoder, logical_axes, path_name
from seallm_jax.planning.candidate import Candidate
from seallm_jax.planning.topology import RATES, Topology
from seallm_jax.training import partition
from seallm_jax.training.subset import chosen_neurons, trained_patterns

EFFICIENCY = 0.8  # of matrix units
HIDDEN = 0.8  # of the computing time that collectives can run behind
NEVER_HIDDEN = 0.1  # of what is moved
LINKS = 2  # of a device that a collective uses
MOMENTS = {"adamw": 2.0, "muon": 1.0, "lion": 1.0, "adafactor": 0.02}  # values of optimizer state a parameter


class RoughCost:
    """Guesses for candidates of one stage on one slice. `least_bytes` is no guess: no program needs less."""

    def __init__(self, model: ModelConfig, train: TrainConfig, packing: PackingConfig, topology: Topology):
        """
        Args:
          model: shape of the model, vocabulary sizes filled in.
          train: what candidates do not change: optimizer, adapter, dtypes.
          packing: positions of a row.
          topology: the slice.
        """
        self._model, self._train, self._topology = model, train, topology
        self._positions = packing.sequence_length
        _, parameters = abstract_decoder(model, param_dtype=jnp.dtype(train.parameter_dtype), adapter=train.adapter)
        patterns = trained_patterns(train, parameters, chosen_neurons(train.optimizer))
        trained, _ = partition.split(parameters, patterns)
        self._parameters, self._trained = (self._leaves(tree) for tree in (parameters, trained))
        rates = RATES.get(topology.generation, RATES["v5p"])
        self._rates, self._peak = rates, peak_flops(rates.device_kind) or 0.0

    def least_bytes(self, candidate: Candidate) -> float:
        """What a device must hold in any case: parameters, optimizer state, and inputs of layers."""
        kept = 0.0 if candidate.remat == "offload" else self._of_layers(candidate, self._model.hidden_size)
        return self.state_bytes(candidate.mesh) + kept

    @functools.cache  # noqa: B019
    def bytes(self, candidate: Candidate) -> float:
        """A guess at the peak: that, gradients, what the remat policy keeps, and what one layer needs while it runs."""
        model, tensor = self._model, candidate.mesh.tensor
        values = (
            0.0 if candidate.remat == "offload" else self._of_layers(candidate, self._kept(candidate.remat, tensor))
        )
        gradients = 4.0 * self._elements(candidate.mesh, trained=True)
        layer = self._layer_parameters() / tensor * 2 * 2  # gathered, and the next one
        matrix = model.padded_vocabulary_size * model.hidden_size / tensor * 4
        inside = self._tokens(candidate) * (8 * model.hidden_size + 4 * model.intermediate_size / tensor) * 2
        return self.state_bytes(candidate.mesh) + gradients + values + layer + matrix + inside

    @functools.cache  # noqa: B019
    def seconds(self, candidate: Candidate) -> float:
        """A guess at the time of a step: matrix products, and the collectives that they cannot hide."""
        model, mesh, rates = self._model, candidate.mesh, self._rates
        flops = training_flops(
            model, candidate.batch_rows, self._positions, causal=True, weight_gradients=self._train.adapter is None
        )
        again = 1 + self._computed_again(candidate.remat) / 3  # the forward pass is a third
        computing = flops * again / self._topology.devices / (EFFICIENCY * self._peak)
        bandwidth = LINKS * rates.link_bytes
        forwards = 2 if candidate.remat == "none" else 3  # times that a layer's parameters are gathered
        elements = sum(math.prod(shape) for shape, _, _ in self._parameters) / mesh.tensor
        # parameters are gathered in bfloat16, gradients summed in float32, both once a micro-batch
        moved = candidate.accumulation * elements * (2 * forwards + 4) * (1 - 1 / mesh.fsdp)
        moved += 2 * 4 * elements / mesh.fsdp * (1 - 1 / mesh.data)
        gathering = moved / bandwidth
        rows = candidate.accumulation * self._tokens(candidate) * model.num_layers
        between_heads = rows * 2 * forwards * 2 * 2 * model.hidden_size * (1 - 1 / mesh.tensor) / bandwidth
        keys = 2 * model.num_key_value_heads / mesh.tensor * model.head_size * 2 * mesh.context
        between_positions = rows * 2 * forwards * keys * (1 - 1 / mesh.context) / bandwidth
        to_host = rows * model.hidden_size * 2 * 2 * 2 / rates.host_bytes if candidate.remat == "offload" else 0.0
        update = 3 * self.state_bytes(mesh) / rates.hbm_bytes
        hidden = HIDDEN * computing
        exposed = sum(max(moving - hidden, NEVER_HIDDEN * moving) for moving in (gathering, to_host))
        return computing + exposed + between_heads + between_positions + update

    def keeps_as_much(self, remat: str, other: str) -> bool:
        """Whether a remat policy keeps what another one keeps, or more, in the memory of the device."""
        if remat == "offload":
            return other == "offload"
        return other == "offload" or self._kept(remat, 1) >= self._kept(other, 1)

    def _tokens(self, candidate: Candidate) -> float:
        """Positions of a micro-batch on a device."""
        return candidate.rows_on_a_device * self._positions / candidate.mesh.context

    def _of_layers(self, candidate: Candidate, width: float) -> float:
        """Bytes of values that all layers keep for each position."""
        return self._tokens(candidate) * self._model.num_layers * width * jnp.dtype(self._train.compute_dtype).itemsize

    def _kept(self, remat: str, tensor: int) -> float:
        """Values that a layer keeps for a position."""
        model = self._model
        heads = model.num_heads * model.head_size / tensor
        if remat == "full":
            return model.hidden_size
        if remat in ("attention", "offload"):
            return model.hidden_size + heads
        pairs = 2 * model.num_key_value_heads * model.head_size / tensor
        if remat == "qkv":
            return model.hidden_size + heads + pairs
        products = (2 if model.gated else 1) * model.intermediate_size / tensor
        dots = 3 * model.hidden_size + 2 * heads + pairs + products
        if remat == "dots_and_attention":
            return dots + heads
        return dots if "dots" in remat else dots + 6 * model.hidden_size + 2 * products

    def _computed_again(self, remat: str) -> float:
        """Share of the forward pass's products that the backward pass computes again."""
        model = self._model
        if remat == "none" or "dots" in remat:
            # norms, activations and, unless it is kept, attention
            return {"none": 0.0, "dots_and_attention": 0.03}.get(remat, 0.06)
        if remat != "qkv":
            return 1.0
        inputs = (model.num_heads + 2 * model.num_key_value_heads) * model.head_size
        width = inputs + model.num_heads * model.head_size + (3 if model.gated else 2) * model.intermediate_size
        return 1 - inputs / width

    @functools.cached_property
    def _moment_bytes(self) -> float:
        if self._train.optimizer.offload_state:
            return 0.0
        optimizer = self._train.optimizer
        return MOMENTS[optimizer.name] * (2 if optimizer.state_dtype == "bfloat16" else 4)

    @functools.cache  # noqa: B019
    def state_bytes(self, mesh: MeshConfig) -> float:
        """Parameters and optimizer state on a device, which is no guess either."""
        parameters = sum(
            math.prod(shape) * size / self._split(shape, axes, mesh) for shape, axes, size in self._parameters
        )
        return parameters + self._moment_bytes * self._elements(mesh, trained=True)

    @functools.cache  # noqa: B019
    def _elements(self, mesh: MeshConfig, *, trained: bool) -> float:
        leaves = self._trained if trained else self._parameters
        return sum(math.prod(shape) / self._split(shape, axes, mesh) for shape, axes, _ in leaves)

    def _layer_parameters(self) -> float:
        whole = sum(math.prod(shape) for shape, axes, _ in self._parameters if axes and axes[0] == "layers")
        return whole / self._model.num_layers

    @staticmethod
    def _leaves(tree: Any) -> list[tuple[tuple[int, ...], tuple[str | None, ...], int]]:
        return [
            (leaf.shape, logical_axes(path_name(path), len(leaf.shape)), leaf.dtype.itemsize)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        ]

    @staticmethod
    def _split(shape: tuple[int, ...], axes: tuple[str | None, ...], mesh: MeshConfig) -> int:
        """Devices that an array is split over, as `ShardingRules` lays it out."""
        parts = 1
        for size, axis in zip(shape, axes, strict=True):
            entry = None if axis is None else getattr(ShardingRules(), axis)
            names = (entry,) if isinstance(entry, str) else entry or ()
            extent = math.prod(getattr(mesh, name) for name in names)
            parts *= extent if size % extent == 0 else 1
        return parts
