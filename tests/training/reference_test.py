"""Reference log-probabilities against the objective's own, with a last batch that is not full."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from small_job import MODEL, FakeSource

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import MeshConfig
from seallm_jax.data.reference import ReferenceLogps
from seallm_jax.models.layout import initialize
from seallm_jax.objectives.segment_log_probability import segment_log_probabilities
from seallm_jax.training.reference import fill_reference_logps


def test_every_segment_of_every_row(tmp_path):
    mesh = build_mesh(MeshConfig(), jax.devices())
    rows = 8 if 8 % mesh.size == 0 else mesh.size
    whole = next(FakeSource(2 * rows, 2 * rows).batches(0, slice(0, 2 * rows)))
    total = 2 * rows - 3
    last = jax.tree.map(lambda x: np.where(np.arange(rows)[:, None] < rows - 3, x[rows:], 0).astype(x.dtype), whole)
    batches = [(slice(0, rows), jax.tree.map(lambda x: x[:rows], whole)), (slice(rows, total), last)]
    model = initialize(MODEL, seed=0, mesh=mesh)
    reference = ReferenceLogps.create(tmp_path, "digest", total, 2)
    fill_reference_logps(
        reference, batches, nnx.state(model), MODEL, compute_dtype="float32", mesh=mesh, progress=Progress.silent()
    )
    alone = initialize(MODEL, seed=0)
    expected = jax.jit(lambda b: segment_log_probabilities(alone, b, 2, compute_dtype=jnp.float32))(whole)
    saved = ReferenceLogps.open(tmp_path, "digest").values
    np.testing.assert_allclose(saved, np.asarray(expected)[:total], rtol=1e-5, atol=1e-5)
    assert (saved < 0).all()
