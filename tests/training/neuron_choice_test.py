"""The choice of neurons against its definition in sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.models.neurons import Neurons
from seallm_jax.training.neuron_choice import choose

CODES = ("th", "lo", "en", "zh")
shares = st.floats(0.01, 1.0)


@st.composite
def importances(draw):
    """Importances of two kinds for all codes; few different values, so that there are ties."""
    layers = draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.sampled_from((3, 1000)))
    sizes = {"mlp": draw(st.integers(1, 12)), "attention.key": draw(st.integers(1, 5))}
    return {
        code: {kind: random.integers(0, values, (layers, n)).astype(np.float32) for kind, n in sizes.items()}
        for code in CODES
    }


def sets(neurons: Neurons) -> dict[str, set[tuple[int, int]]]:
    """kind -> (layer, neuron)."""
    return {
        kind: {(layer, n) for layer, numbers in enumerate(layers) for n in numbers}
        for kind, layers in neurons.chosen.items()
    }


@given(importances(), shares)
def test_one_language_has_its_largest(found, share):
    for kind, chosen in sets(choose(found, ["th"], [], share)).items():
        values = found["th"][kind]
        assert len(chosen) == max(1, round(share * values.size))
        order = sorted(np.ndindex(values.shape), key=lambda place: (-values[place], place))
        assert chosen == set(order[: len(chosen)])


@given(importances(), shares, st.permutations(CODES), st.integers(1, 3))
def test_union_less_union(found, share, codes, cut):
    of, without = codes[:cut], codes[cut:]
    alone = {code: sets(choose(found, [code], [], share)) for code in CODES}
    for kind, chosen in sets(choose(found, of, without, share)).items():
        wanted, unwanted = (set().union(*(alone[code][kind] for code in part)) for part in (of, without))
        assert chosen == wanted - unwanted


@given(importances(), shares, shares)
def test_a_larger_share_holds_a_smaller(found, one, other):
    smaller, larger = (sets(choose(found, CODES[:2], [], share)) for share in sorted((one, other)))
    assert all(smaller[kind] <= larger[kind] for kind in smaller)


@given(importances(), shares)
def test_the_choice_fits_the_model_and_comes_back_from_its_file(tmp_path_factory, found, share):
    neurons = choose(found, CODES[:2], CODES[2:], share)
    path = tmp_path_factory.mktemp("choice") / "neurons.json"
    neurons.write(path, share=share)
    assert Neurons.read(path) == neurons
    layers, size = found["th"]["mlp"].shape
    masks = neurons.masks({"layers": {"mlp": {"down": {"kernel": np.zeros((layers, size, 3))}}}})
    (mask,) = masks.values()
    assert {(layer, n) for layer, n, _ in np.argwhere(mask).tolist()} == sets(neurons)["mlp"]


@pytest.mark.parametrize(
    ("of", "without", "share", "message"),
    [
        (["th"], [], 0.0, r"must lie in \(0, 1\]"),
        (["th"], [], 1.5, "share of neurons is 1.5"),
        ([], ["en"], 0.1, "no language"),
        (["th", "en"], ["en"], 0.1, "en is among the languages and among those left out"),
    ],
)
def test_what_cannot_be_chosen_is_refused(of, without, share, message):
    found = {code: {"mlp": np.ones((2, 3))} for code in CODES}
    with pytest.raises(UsageError, match=message):
        choose(found, of, without, share)


def test_importance_that_is_not_a_number_is_refused():
    with pytest.raises(SeallmError, match="importance of mlp neurons for lo is not finite"):
        choose({"th": {"mlp": np.ones((1, 3))}, "lo": {"mlp": np.array([[1, np.nan, 0]])}}, ["th", "lo"], [], 0.5)
