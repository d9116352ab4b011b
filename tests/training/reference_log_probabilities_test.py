"""Reference log-probabilities against the objective's own, with a last batch that is not full; computed once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_job import LANGUAGES, MODEL, VOCABULARY

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import MeshConfig
from seallm_jax.data.loader import read_in_order
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shards import ShardReader, ShardWriter
from seallm_jax.models.layout import initialize
from seallm_jax.objectives.segment_log_probability import segment_log_probabilities
from seallm_jax.training import reference
from seallm_jax.training.reference import reference_log_probabilities

T = 24


@pytest.fixture
def reader(tmp_path):
    """13 rows of one or two pairs."""
    directory, random = tmp_path / "tokens" / "preferences" / "km", np.random.default_rng(0)
    with ShardWriter(directory) as writer:
        for row in range(13):
            pieces = [
                Piece(random.integers(0, VOCABULARY, 6).astype(np.int32), document=row) for _ in range(2 + row % 2 * 2)
            ]
            writer.write(PackedRow.of(pieces))
        writer.finish(
            kind="preferences",
            language="km",
            languages=("km",),
            sequence_length=T,
            tokenizer_digest="tokenizer",
            inputs_digest="i",
            documents=13,
        )
    return ShardReader(directory)


def test_every_segment_of_every_row_once(tmp_path, reader, monkeypatch):
    mesh = build_mesh(MeshConfig(), jax.devices())

    def compute(model_digest="m"):
        return reference_log_probabilities(
            initialize(MODEL, seed=0, mesh=mesh),
            [reader],
            LANGUAGES,
            tmp_path / "reference",
            model_digest=model_digest,
            batch_rows=8,
            mesh=mesh,
            compute_dtype="float32",
            progress=Progress.silent(),
        )["preferences/km"].values

    values = compute()
    alone = initialize(MODEL, seed=0)
    _, whole = next(read_in_order(reader, LANGUAGES, 13))
    expected = jax.jit(lambda batch: segment_log_probabilities(alone, batch, 4, compute_dtype=jnp.float32))(whole)
    np.testing.assert_allclose(values, np.asarray(expected), rtol=1e-5, atol=1e-5)
    assert values.shape == (13, 4) and (values[1::2] < 0).all() and (values[0::2, 2:] == 0).all()

    monkeypatch.setattr(reference, "_segment_sums", lambda *_: np.full((8, 4), 7.0))
    np.testing.assert_array_equal(compute(), values)  # not computed again
    assert (compute("another model") == 7).all()  # what another model has left is
