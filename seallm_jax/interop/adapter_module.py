"""A module of a Hugging Face model as PEFT adapts it, and the same adapter on our parameters.

PEFT's matrices are A [r, in] and B [out, r]. A fused module, such as BLOOM's query_key_value, has one pair for several
of our kernels: they share A, and each has its rows of B.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from seallm_jax.core.adapter_config import TARGETS
from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.families.registry import family_named
from seallm_jax.models.families.weight import Weight

Factors = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class AdapterModule:
    """One module, or the same one of each layer.

    Attributes:
      name: in the Hugging Face model, with `{layer}` where each layer has one.
      kernels: the rows of the weight table that it holds, by target (query, key, ...); several if it is fused.
    """

    name: str
    kernels: Mapping[str, Weight]

    @property
    def last_name(self) -> str:
        """What `target_modules` calls it."""
        return self.name.rpartition(".")[2]

    @property
    def is_embedding(self) -> bool:
        """Whether its inputs are ids: PEFT then names its matrices lora_embedding_A and lora_embedding_B."""
        return "embedding" in self.kernels

    def instances(self, config: ModelConfig) -> list[str]:
        """Its names, by layer."""
        return [self.name.format(layer=layer) for layer in range(config.num_layers)] if self.stacked else [self.name]

    @property
    def stacked(self) -> bool:
        """Whether each layer has one."""
        return "{layer}" in self.name

    def owner(self, target: str) -> str:
        """Dotted path of our module with the kernel of a target."""
        return self.kernels[target].path.rpartition(".")[0]

    def shape(self, config: ModelConfig) -> tuple[int, int]:
        """(in, out), as PEFT counts them."""
        first, second = next(iter(self.kernels.values())).checkpoint_shape(config)
        return (first, second) if self.is_embedding else (second, first)

    def to_peft(self, factors: Mapping[str, Factors], config: ModelConfig, *, shared: bool = True) -> Factors:
        """(A, B) of one layer.

        Args:
          factors: our (lora_a, lora_b) by target; all of one rank.
          config: the model's shape.
          shared: whether all have the same A, which then is A. Otherwise theirs lie below each other, and B is zero
            outside its blocks.
        """
        rank = next(iter(factors.values()))[0].shape[-1]
        their_out = self._letters(next(iter(factors)))[3]
        parts: dict[str, int] = {target: 0 if shared else rank * n for n, target in enumerate(factors)}
        total = rank if shared else rank * len(factors)
        sizes = next(iter(self.kernels.values())).sizes(config)
        b_out_x_r = np.zeros([*(sizes[x] for x in their_out), total], np.float32)
        a_by_first = {}
        for target, (a, b) in factors.items():
            into, out, their_in, _ = self._letters(target)
            # without the rows that pad the vocabulary
            a, b = a[tuple(slice(sizes[x]) for x in into)], b[(slice(None), *(slice(sizes[x]) for x in out))]
            first = parts[target]
            a_by_first[first] = a.transpose(len(into), *(into.index(x) for x in their_in)).reshape(rank, -1)
            place = tuple(self.kernels[target].part if x == "P" else slice(None) for x in their_out)
            b_out_x_r[(*place, slice(first, first + rank))] = b.transpose(
                *(1 + out.index(x) for x in their_out if x != "P"), 0
            )
        return np.concatenate(list(a_by_first.values())), b_out_x_r.reshape(-1, total)

    def from_peft(self, a: np.ndarray, b: np.ndarray, config: ModelConfig) -> dict[str, Factors]:
        """Our (lora_a, lora_b) by target, from A and B of one layer.

        A kernel of a fused module gets only the columns of B that reach it, and nothing where none does.
        """
        found = {}
        for target, weight in self.kernels.items():
            into, out, their_in, their_out = self._letters(target)
            sizes = weight.sizes(config)
            ours_b = b.reshape(*(sizes[x] for x in their_out), -1)
            ours_b = ours_b[tuple(weight.part if x == "P" else slice(None) for x in their_out)]
            reached: np.ndarray = np.ones(b.shape[1], bool)
            if len(self.kernels) > 1 and b.any():
                reached = np.any(ours_b.reshape(-1, b.shape[1]), axis=0)
            if reached.any():
                left = [x for x in their_out if x != "P"]
                ours_b = ours_b[..., reached].transpose(len(left), *(left.index(x) for x in out))
                ours_a = a.reshape(-1, *(sizes[x] for x in their_in))[reached]
                found[target] = ours_a.transpose(*(1 + their_in.index(x) for x in into), 0), ours_b
        return found

    def _letters(self, target: str) -> tuple[str, str, str, str]:
        """(inputs in our order, outputs in our order, inputs in theirs, outputs in theirs with P)."""
        weight = self.kernels[target]
        their_out, their_in = weight.theirs[::-1] if self.is_embedding else weight.theirs
        return (
            "".join(x for x in weight.ours if x in their_in),
            "".join(x for x in weight.ours if x in their_out),
            their_in,
            their_out,
        )


def adapter_modules(config: ModelConfig) -> list[AdapterModule]:
    """The modules of a model of this shape that can have an adapter, in the order of the layers."""
    groups: dict[str, dict[str, Weight]] = {}
    for weight in family_named(config.family).weights(config):
        *_, owner, parameter = weight.path.split(".")
        if parameter == "kernel" and owner in TARGETS:
            groups.setdefault(weight.name.removesuffix(".weight"), {})[owner] = weight
    return [AdapterModule(name, kernels) for name, kernels in groups.items()]
