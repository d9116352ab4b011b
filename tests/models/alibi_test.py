from __future__ import annotations

import numpy as np
import pytest

from seallm_jax.models.alibi import alibi_slopes

torch = pytest.importorskip("torch")
modeling_bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")


@pytest.mark.parametrize("heads", [*range(1, 34), 48, 64, 71, 112, 128])
def test_slopes_are_those_of_bloom(heads):
    bias = modeling_bloom.build_alibi_tensor(torch.ones(1, 3), heads, torch.float32)
    slopes = alibi_slopes(heads)
    assert slopes.dtype == np.float32 and slopes.shape == (heads,)
    np.testing.assert_allclose(slopes[:, None] * np.arange(3), bias[:, 0].numpy(), rtol=2e-6)
