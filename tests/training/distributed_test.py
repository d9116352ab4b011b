"""Global arrays from local rows, and the errors of joining."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from small_job import FakeSource

from seallm_jax.core.errors import UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.training.distributed import abstract_batch, global_batch, initialize_distributed, local_rows


@pytest.mark.parametrize("axes", [{}, {"fsdp": 4, "tensor": 2}, {"data": 2, "fsdp": 2, "context": 2}])
def test_global_batch_holds_the_rows_in_order(axes):
    if axes and jax.device_count() < 8:
        pytest.skip("needs 8 emulated devices")
    mesh = build_mesh(MeshConfig(**axes), jax.devices()[:8])
    abstract = abstract_batch(8, 24, mesh, ShardingRules(), reference_columns=2)
    rows = local_rows(abstract)
    assert rows == slice(0, 8)
    local = next(FakeSource(8, 8, reference_columns=2).batches(0, rows))
    whole = global_batch(local, rows, abstract)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), local)
    for array, expected in zip(jax.tree.leaves(whole), jax.tree.leaves(abstract), strict=True):
        assert array.sharding == expected.sharding and array.dtype == expected.dtype


def test_all_arguments_of_joining_or_none():
    with pytest.raises(UsageError, match="together, or none"):
        initialize_distributed("localhost:1234", 2, None)
