from __future__ import annotations

import jax
import numpy as np
import pytest

from seallm_jax.planning.linear_cross_entropy import PLAIN, ways, with_gradients


def test_all_ways_lead_to_the_same_numbers():
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, output = jax.random.normal(keys[0], (24, 8)), jax.random.normal(keys[1], (100, 8))
    targets = jax.random.randint(keys[2], (24,), 0, 100)
    cotangent = jax.random.normal(keys[3], (24,))
    found = {name: with_gradients(way, hidden, output, targets, cotangent) for name, way in ways("cpu").items()}
    assert {"seallm chunked_xla", PLAIN, "optax"} <= set(found)
    assert set(ways("tpu")) == set(found) | {"seallm pallas_tpu"}
    torch = pytest.importorskip("torch")
    h, w = (torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True) for x in (hidden, output))
    losses = torch.nn.functional.cross_entropy(h @ w.T, torch.tensor(np.asarray(targets)).long(), reduction="none")
    losses.backward(-torch.tensor(np.asarray(cotangent), dtype=torch.float64))
    expected = [-losses.detach().numpy(), h.grad.numpy(), w.grad.numpy()]
    for name, values in found.items():
        for x, y in zip(values, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5, err_msg=name)
