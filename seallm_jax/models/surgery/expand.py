"""More blocks in a model: which ones are copied, where the copies go, and what is changed in them."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig

METHODS = ("llama_pro", "depth")
# what a block adds to the residual stream, so that zeros make it the identity, wherever its norms are
OUTPUTS = (
    "layers.attention.output.kernel",
    "layers.attention.output.bias",
    "layers.attention_output_norm.bias",
    "layers.mlp.down.kernel",
    "layers.mlp.down.bias",
    "layers.mlp_output_norm.bias",
)


@dataclasses.dataclass(frozen=True)
class Expansion:
    """A deeper model, made of copies of a model's blocks.

    Attributes:
      sources: for each block of the deeper model, the block that it comes from.
      inserted: the blocks of the deeper model that are new: the copies.
      zero_outputs: whether the copies start as the identity.
      noise: standard deviation of gaussian noise on all parameters of the copies.
      seed: of the noise.
    """

    sources: tuple[int, ...]
    inserted: tuple[int, ...]
    zero_outputs: bool = False
    noise: float = 0.0
    seed: int = 0

    @classmethod
    def llama_pro(cls, layers: int, blocks: int) -> Expansion:
        """Block expansion of LLaMA Pro (arXiv 2401.02415).

        The layers are cut into `blocks` groups, as equal as possible, and the last block of each is followed by a copy
        whose attention and MLP write zeros: the deeper model computes what the model did. The paper trains the copies
        only. In models that normalise what a block writes, the first gradients are large: the norm divides by
        sqrt(norm_epsilon).

        Raises:
          SeallmError: more blocks than layers, or none.
        """
        if not 1 <= blocks <= layers:
            raise SeallmError(f"llama_pro cannot add {blocks} blocks to {layers} layers; use 1 to {layers}")
        return cls._copying([-(-layers * group // blocks) - 1 for group in range(1, blocks + 1)], layers, zero=True)

    @classmethod
    def depth(cls, layers: int, blocks: int, *, noise: float = 0.01, seed: int = 0) -> Expansion:
        """Layer extension of Babel (arXiv 2503.00865): copies among the second half of the layers, with noise.

        The copied blocks are spread evenly over the second half; each copy follows its block. The last block is not
        copied: layers after it harm the model most. The noise there has a variance of 1e-4.

        Raises:
          SeallmError: more blocks than the second half has, or none; negative noise.
        """
        first = layers // 2
        candidates = layers - 1 - first
        if not 1 <= blocks <= candidates:
            possible = f"use 1 to {candidates}" if candidates > 0 else "use a model with at least 3"
            raise SeallmError(f"depth cannot add {blocks} blocks to the second half of {layers} layers; {possible}")
        if noise < 0:
            raise SeallmError(f"noise is {noise}; it must not be negative")
        copied = [first + index * candidates // blocks for index in range(blocks)]
        return cls._copying(copied, layers, zero=False, noise=noise, seed=seed)

    @classmethod
    def _copying(cls, copied: list[int], layers: int, *, zero: bool, noise: float = 0.0, seed: int = 0) -> Expansion:
        order = sorted([*range(layers), *copied])  # a copy right after its block
        inserted = tuple(index for index in range(1, len(order)) if order[index] == order[index - 1])
        return cls(tuple(order), inserted, zero, noise, seed)

    def config(self, config: ModelConfig) -> ModelConfig:
        """Shape of the deeper model. A copy of a block with a sliding window has it too."""
        local = tuple(config.local_layers[source] for source in self.sources) if config.local_layers else ()
        return dataclasses.replace(config, num_layers=len(self.sources), local_layers=local)

    def block_parameter(self, path: str, block: int, source: np.ndarray) -> np.ndarray:
        """A parameter of one block of the deeper model, in the dtype of `source`.

        Args:
          path: dotted name, as `layers.mlp.down.kernel`.
          block: index in the deeper model.
          source: the parameter of block `sources[block]`, without the stacking axis. It is not changed.
        """
        if block not in self.inserted:
            return source
        if self.zero_outputs and path in OUTPUTS:
            return np.zeros_like(source)
        if not self.noise:
            return source
        random = np.random.default_rng((self.seed, zlib.crc32(path.encode()), block))
        noise = np.float32(self.noise) * random.standard_normal(source.shape, np.float32)
        return (source.astype(np.float32) + noise).astype(source.dtype)

    def parameter(self, path: str, value: np.ndarray) -> np.ndarray:
        """A whole parameter of the deeper model; those below `layers.` are stacked [L, ...]."""
        if not path.startswith("layers."):
            return value
        blocks = enumerate(self.sources)
        return np.stack([self.block_parameter(path, block, value[source]) for block, source in blocks])
