"""Several fine-tuned models of one base into one model, tensor by tensor.

All methods but `linear` add up task vectors, the differences from the base:

  linear           weighted average of the models
  task_arithmetic  base + weighted sum (arXiv 2212.04089)
  ties             keep the largest entries, elect a sign for each, average what agrees with it (arXiv 2306.01708)
  dare_ties        drop entries at random and rescale the rest, then as above (arXiv 2311.03099)
  della            as dare_ties, but small entries are dropped more often (arXiv 2406.11617)

The names of the settings, and their defaults, are those of mergekit. What is kept at random is divided by its
probability, as in the papers, where mergekit restores the L1 norm.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable

import numpy as np

from seallm_jax.core.errors import SeallmError

METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "della")
SPARSE = ("ties", "dare_ties", "della")


@dataclasses.dataclass(frozen=True)
class Merge:
    """How models are merged.

    Attributes:
      method: one of `METHODS`.
      weights: one for each model. A task vector's entries are multiplied by it.
      densities: share of the entries that is kept, one for each model; for `SPARSE` methods, 1 without it.
      normalize: divide by the sum of the weights (of those models that agree with the elected sign). None:
        `linear`, `ties` and `della` do.
      scale: factor of the merged task vector, lambda in the papers.
      epsilon: della keeps entries with probabilities from density - epsilon, for the smallest of a row of the tensor,
        to density + epsilon, for the largest. The paper's is twice as large.
      seed: of what is dropped.
    """

    method: str
    weights: tuple[float, ...]
    densities: tuple[float, ...] = ()
    normalize: bool | None = None
    scale: float = 1.0
    epsilon: float = 0.15
    seed: int = 0

    def __post_init__(self):
        """Raises SeallmError for settings that do not fit together."""
        if self.method not in METHODS:
            raise SeallmError(f"merge method is {self.method!r}; use one of {', '.join(METHODS)}")
        if not self.weights:
            raise SeallmError("there is no model to merge; name at least one")
        if self.densities and self.method not in SPARSE:
            raise SeallmError(f"{self.method} keeps everything, so it has no density; leave it out")
        if self.densities and len(self.densities) != len(self.weights):
            raise SeallmError(f"{len(self.densities)} densities for {len(self.weights)} models; give one for each")
        for density in self.densities:
            if not 0 < density <= 1:
                raise SeallmError(f"density is {density}; it must be above 0 and at most 1")
            if self.method == "della" and density < 1 and not self.epsilon < min(density, 1 - density):
                raise SeallmError(
                    f"epsilon is {self.epsilon} and density {density}; density - epsilon and density + epsilon must be "
                    "between 0 and 1"
                )
        if self.epsilon < 0:
            raise SeallmError(f"epsilon is {self.epsilon}; it must not be negative")
        if self.normalizes and self.method not in SPARSE and abs(sum(self.weights)) < 1e-8:
            raise SeallmError(f"the weights {self.weights} sum to 0 and cannot be normalised; use others")

    @property
    def normalizes(self) -> bool:
        """Whether sums are divided by weights."""
        return self.method in ("linear", "ties", "della") if self.normalize is None else self.normalize

    def tensor(self, name: str, base: np.ndarray | None, models: Iterable[np.ndarray]) -> np.ndarray:
        """One tensor of the merged model, float32.

        Args:
          name: its name; what is dropped at random depends on it and the seed alone.
          base: the base's tensor, any float dtype, rows of outputs first (as checkpoints have them). None for linear.
          models: the same of each model, one after the other.
        """
        if self.method == "linear":
            merged = _sum(w * model.astype(np.float32) for w, model in zip(self._weights, models, strict=True))
            return np.float32(self.scale) * (merged / self._weights.sum() if self.normalizes else merged)
        if base is None:
            raise ValueError(f"{self.method} needs a base")
        base = base.astype(np.float32)
        vectors = (model.astype(np.float32) - base for model in models)
        if self.method == "task_arithmetic":
            merged = _sum(w * vector for w, vector in zip(self._weights, vectors, strict=True))
            if self.normalizes:
                merged /= self._weights.sum()
            return base + np.float32(self.scale) * merged
        weighted = [
            w * self._sparse(vector, name, index)
            for index, (w, vector) in enumerate(zip(self._weights, vectors, strict=True))
        ]
        positive = _sum(weighted) >= 0  # the elected signs
        merged, divisor = np.zeros_like(base), np.zeros_like(base)
        for w, vector in zip(self._weights, weighted, strict=True):
            agrees = np.where(positive, vector > 0, vector < 0)
            merged += np.where(agrees, vector, 0)
            divisor += w * agrees
        if self.normalizes:
            merged /= np.where(np.abs(divisor) < 1e-8, np.float32(1), divisor)
        return base + np.float32(self.scale) * merged

    @property
    def _weights(self) -> np.ndarray:
        return np.asarray(self.weights, np.float32)

    def _sparse(self, vector: np.ndarray, name: str, index: int) -> np.ndarray:
        """The entries of one model's task vector that are kept, rescaled where others are dropped at random."""
        density = self.densities[index] if self.densities else 1.0
        if density == 1:
            return vector
        if self.method == "ties":
            magnitudes = np.abs(vector).reshape(-1)
            dropped = vector.size - max(1, int(density * vector.size))
            smallest_kept = np.partition(magnitudes, dropped)[dropped]
            return np.where(np.abs(vector) >= smallest_kept, vector, np.float32(0))
        random = np.random.default_rng((self.seed, zlib.crc32(name.encode()), index))
        kept_with = (
            np.float32(density) if self.method == "dare_ties" else self._magnitude_probabilities(vector, density)
        )
        return np.where(random.random(vector.shape, np.float32) < kept_with, vector / kept_with, np.float32(0))

    def _magnitude_probabilities(self, vector: np.ndarray, density: float) -> np.ndarray:
        """Probability of keeping each entry, by the rank of its magnitude in its row; a vector is one row."""
        magnitudes = np.abs(vector).reshape(vector.shape[0] if vector.ndim > 1 else 1, -1)
        probabilities = np.empty_like(magnitudes)
        spread = self.epsilon if magnitudes.shape[1] > 1 else 0.0
        by_rank = np.linspace(density - spread, density + spread, magnitudes.shape[1], dtype=np.float32)
        np.put_along_axis(probabilities, magnitudes.argsort(axis=1, kind="stable"), by_rank[None], axis=1)
        return probabilities.reshape(vector.shape)


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """A new array; one more at a time is in memory."""
    iterator = iter(arrays)
    total = np.array(next(iterator))
    for array in iterator:
        total += array
    return total
