"""Which neurons belong to some languages: important to one of them, and to none of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.models.neurons import Neurons


def choose(
    importances: Mapping[str, Mapping[str, np.ndarray]], of: Sequence[str], without: Sequence[str], share: float
) -> Neurons:
    """The neurons important to a language in `of` that are important to no language in `without`.

    Important to a language are, of each kind, its first `share` by importance, over all layers together and at least
    one; of equals those in lower layers and with lower numbers. The difference of sets is that of Zhao et al. (arXiv
    2402.18815), where `without` is English.

    Args:
      importances: language -> kind -> float [layers, neurons], of the same kinds and shapes for all languages.
      of: languages whose neurons are looked for.
      without: languages whose neurons are left out; none leaves out nothing.
      share: of all neurons of a kind, in (0, 1].

    Raises:
      UsageError: a share or languages that cannot be.
      SeallmError: an importance that is not a number.
    """
    check_choice(of, without, share)
    chosen = {}
    for kind in importances[of[0]]:
        important = {code: _most_important(code, kind, importances[code][kind], share) for code in (*of, *without)}
        wanted_LxN = np.logical_or.reduce([important[code] for code in of])
        for code in without:
            wanted_LxN &= ~important[code]
        chosen[kind] = tuple(tuple(np.flatnonzero(layer).tolist()) for layer in wanted_LxN)
    return Neurons(chosen)


def check_choice(of: Sequence[str], without: Sequence[str], share: float) -> None:
    """Raises UsageError for arguments with which `choose` has nothing to choose."""
    if not 0 < share <= 1:
        raise UsageError(f"the share of neurons is {share:g}; it must lie in (0, 1], as 0.01")
    if not of:
        raise UsageError("there is no language to find neurons of; name at least one")
    if both := [code for code in of if code in without]:
        raise UsageError(f"{', '.join(both)} is among the languages and among those left out; name it once")


def _most_important(code: str, kind: str, importance_LxN: np.ndarray, share: float) -> np.ndarray:
    """bool [L, N], true for the first `share` of all."""
    if not np.isfinite(importance_LxN).all():
        raise SeallmError(f"the importance of {kind} neurons for {code} is not finite; does the model's loss diverge?")
    count = max(1, round(share * importance_LxN.size))
    first = np.argsort(-importance_LxN, axis=None, kind="stable")[:count]
    mask = np.zeros(importance_LxN.size, bool)
    mask[first] = True
    return mask.reshape(importance_LxN.shape)
