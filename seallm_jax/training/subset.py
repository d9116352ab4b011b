"""Training parts of arrays: some layers of a stack, some neurons of a projection. The rest keeps its bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import OptimizerConfig, TrainConfig
from seallm_jax.models.layout import path_name
from seallm_jax.models.neurons import Neurons
from seallm_jax.training import partition


def chosen_neurons(optimizer: OptimizerConfig) -> Neurons | None:
    """The choice in the file that `optimizer.neurons` names; None where it names none."""
    return Neurons.read(optimizer.neurons) if optimizer.neurons else None


def trained_patterns(train: TrainConfig, parameters: Any, neurons: Neurons | None) -> tuple[str, ...]:
    """`train.trainable`, which with neurons and no pattern given are the parameters that these belong to."""
    if neurons is None or train.optimizer.trainable != OptimizerConfig.trainable:
        return train.trainable
    return tuple(sorted(neurons.masks(parameters)))


@dataclasses.dataclass(frozen=True)
class Subset:
    """What is trained of the arrays that are trained in part.

    The optimizer keeps moments for such arrays as a whole, which are zero where nothing is trained.

    Attributes:
      masks: path -> bool, true where values are trained; broadcasts to the parameter.
    """

    masks: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, patterns: Sequence[str], neurons: Neurons | None, trainable: Any) -> Subset | None:
        """What a configuration asks for; None where all of `trainable` is trained.

        Args:
          patterns: `optimizer.trainable`, checked.
          neurons: a choice; parameters of other kinds are trained as the patterns say.
          trainable: the trainable part of the parameters.

        Raises:
          UsageError: neurons that the model does not have, or none that is trained.
        """
        masks = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(trainable):
            name = path_name(path)
            named = [partition.layers_of(p, leaf.shape[0]) for p in patterns if partition.matches(name, [p])]
            layers = [found for found in named if found is not None]
            if len(layers) == len(named):  # no pattern is for all layers
                mask = np.zeros((leaf.shape[0], *[1] * (len(leaf.shape) - 1)), bool)
                for found in layers:
                    mask[found] = True
                masks[name] = mask
        if neurons is not None:
            chosen = neurons.masks(trainable)
            if not any(np.any(mask & masks.get(name, True)) for name, mask in chosen.items()):
                raise UsageError(
                    f"optimizer.neurons names no neuron of what optimizer.trainable = {', '.join(patterns)} trains"
                )
            masks |= {name: mask & masks.get(name, True) for name, mask in chosen.items()}
        masks = {name: mask for name, mask in masks.items() if not mask.all()}
        return cls(masks) if masks else None

    def select(self, new: Any, old: Any) -> Any:
        """`new` where values are trained, else `old`, bit for bit."""

        def choose(path: tuple[Any, ...], new: jax.Array, old: jax.Array) -> jax.Array:
            mask = self.masks.get(path_name(path))
            return new if mask is None else jnp.where(mask, new, old)

        return jax.tree_util.tree_map_with_path(choose, new, old)
