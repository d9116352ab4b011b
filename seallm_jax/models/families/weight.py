"""One row of a family's weight table, used in both directions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from seallm_jax.core.schema import ModelConfig


@dataclasses.dataclass(frozen=True)
class Weight:
    """One parameter here and the tensor or tensors that hold it in a checkpoint.

    Letters: V vocabulary (logical size), M hidden, F intermediate, H query heads, K key/value heads, D head size, P the
    parts of a fused tensor.

    Attributes:
      path: dotted name in the model; a path below `layers.` is stacked, one tensor for each layer.
      name: name in a checkpoint, with `{layer}` for the layer's number.
      theirs: dimensions of the checkpoint's tensor; letters in one string are one merged dimension.
      ours: dimensions of the parameter, without the stacking axis.
      part: which part of a fused tensor this parameter is; None when the tensor holds it alone. All rows with one
        `name` make up the tensor, and `theirs` has the letter P where the parts lie.
      parts: how many parts the tensor has.
    """

    path: str
    name: str
    theirs: tuple[str, ...]
    ours: str
    part: int | None = None
    parts: int = 1

    @property
    def stacked(self) -> bool:
        """Whether each layer has a tensor of its own."""
        return "{layer}" in self.name

    def names(self, config: ModelConfig) -> list[str]:
        """Names in a checkpoint, by layer for a stacked parameter."""
        return [self.name.format(layer=layer) for layer in range(config.num_layers)] if self.stacked else [self.name]

    def checkpoint_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Shape of one of its tensors in a checkpoint."""
        sizes = self.sizes(config)
        return tuple(math.prod(sizes[letter] for letter in merged) for merged in self.theirs)

    def from_checkpoint(self, tensor: np.ndarray, config: ModelConfig) -> np.ndarray:
        """A view of a checkpoint's tensor as the parameter (of one layer) holds it, vocabulary rows not padded.

        Of a tensor that is not all there, only rows that follow each other, the same; a first letter other than P is
        then as long as they are.
        """
        sizes, letters = self.sizes(config), "".join(self.theirs)
        split = tensor.reshape([-1, *(sizes[letter] for letter in letters[1:])])
        if self.part is not None:
            split = split[tuple(self.part if letter == "P" else slice(None) for letter in letters)]
            letters = letters.replace("P", "")
        return split.transpose([letters.index(letter) for letter in self.ours])

    def to_checkpoint(self, parameter: np.ndarray, config: ModelConfig) -> np.ndarray:
        """The inverse of `from_checkpoint`. Padded vocabulary rows are cut off. For a tensor that is not fused."""
        return join([self], [parameter], config)

    def sizes(self, config: ModelConfig) -> dict[str, int]:
        """Size of each letter; the vocabulary's is the logical one."""
        return {
            "V": config.vocabulary_size,
            "M": config.hidden_size,
            "F": config.intermediate_size,
            "H": config.num_heads,
            "K": config.num_key_value_heads,
            "D": config.head_size,
            "P": self.parts,
        }


def join(rows: Sequence[Weight], parameters: Sequence[np.ndarray], config: ModelConfig) -> np.ndarray:
    """The checkpoint's tensor from all the parameters (of one layer) that share it, in the order of `rows`."""
    pieces = []
    letters = "".join(rows[0].theirs)
    for row, parameter in zip(rows, parameters, strict=True):
        if "V" in row.ours:
            index = row.ours.index("V")
            parameter = parameter[(slice(None),) * index + (slice(config.vocabulary_size),)]
        pieces.append(parameter.transpose([row.ours.index(letter) for letter in letters.replace("P", "")]))
    if rows[0].part is None:
        (tensor,) = pieces
    else:
        order = sorted(range(len(rows)), key=lambda index: rows[index].part or 0)
        tensor = np.stack([pieces[index] for index in order], axis=letters.index("P"))
    return tensor.reshape(rows[0].checkpoint_shape(config))
