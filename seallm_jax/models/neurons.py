"""Neurons: rows and columns of the projections, and the file that names some of them.

A neuron of the MLP is an entry of its hidden activation; one of attention a channel of a head's query, key or value
(arXiv 2402.18815).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from seallm_jax.core.errors import UsageError
from seallm_jax.core.paths import write_json
from seallm_jax.models.layout import path_name

# Kind of neuron -> the parameters that hold its weights, with the dimensions that count neurons. Dimension 0 is the
# layer.
KINDS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "mlp": {
        "layers.mlp.gate.kernel": (2,),
        "layers.mlp.gate.bias": (1,),
        "layers.mlp.up.kernel": (2,),
        "layers.mlp.up.bias": (1,),
        "layers.mlp.down.kernel": (1,),
    },
    "attention.query": {"layers.attention.query.kernel": (2, 3), "layers.attention.query.bias": (1, 2)},
    "attention.key": {"layers.attention.key.kernel": (2, 3), "layers.attention.key.bias": (1, 2)},
    "attention.value": {"layers.attention.value.kernel": (2, 3), "layers.attention.value.bias": (1, 2)},
}
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Neurons:
    """A choice of neurons.

    Attributes:
      chosen: kind -> for each layer, the ascending numbers of the neurons chosen. Channels are numbered head by head.
    """

    chosen: Mapping[str, tuple[tuple[int, ...], ...]]

    @classmethod
    def read(cls, path: str | os.PathLike) -> Neurons:
        """Reads what `write` wrote.

        Raises:
          UsageError: no such file, or it holds something else.
        """
        try:
            content = json.loads(pathlib.Path(path).read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
            chosen = {
                kind: tuple(tuple(map(int, layer)) for layer in layers) for kind, layers in content["neurons"].items()
            }
        except OSError as error:
            raise UsageError(f"cannot read the file of neurons {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path} is no file of neurons ({type(error).__name__}: {error}); `seallm neurons` writes one"
            ) from error
        for kind in chosen:
            if kind not in KINDS:
                raise UsageError(f"{path} has neurons of kind {kind!r}; there are {', '.join(KINDS)}")
        return cls(chosen)

    def write(self, path: str | os.PathLike, **about: Any) -> None:
        """Writes a JSON file, with entries `about` how the neurons were found."""
        write_json(
            path, {"format": FORMAT, **about, "neurons": {kind: self.chosen[kind] for kind in sorted(self.chosen)}}
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the choice."""
        return hashlib.sha256(json.dumps(self.chosen, sort_keys=True).encode()).hexdigest()

    def masks(self, parameters: Any) -> dict[str, np.ndarray]:
        """For each of `parameters` that belongs to a chosen kind: bool, true where chosen, to be broadcast to it.

        Args:
          parameters: a decoder's parameters, their shapes, or a part of either.

        Raises:
          UsageError: a number of layers or a neuron that this model does not have.
        """
        leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)}
        return {
            path: self._mask(kind, leaves[path].shape, dimensions)
            for kind in self.chosen
            for path, dimensions in KINDS[kind].items()
            if path in leaves
        }

    def _mask(self, kind: str, shape: tuple[int, ...], dimensions: tuple[int, ...]) -> np.ndarray:
        layers, size = self.chosen[kind], int(np.prod([shape[d] for d in dimensions]))
        if len(layers) != shape[0]:
            raise UsageError(f"the file of neurons is for {len(layers)} layers, this model has {shape[0]}")
        mask = np.zeros((shape[0], size), bool)
        for layer, numbers in enumerate(layers):
            if numbers and not 0 <= min(numbers) <= max(numbers) < size:
                raise UsageError(
                    f"the file of neurons has {kind} neuron {max(numbers)} in layer {layer}, this model has {size}"
                )
            mask[layer, list(numbers)] = True
        return mask.reshape([n if d == 0 or d in dimensions else 1 for d, n in enumerate(shape)])
