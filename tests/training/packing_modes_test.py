"""What the documents of a row see of one another in the decoder, for each mode of packing."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.schema import KernelConfig, ModelConfig, RopeConfig
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.row_arrays import row_arrays
from seallm_jax.models.decoder import Decoder

T, VOCABULARY = 32, 64
CONFIG = ModelConfig(
    vocabulary_size=VOCABULARY,
    padded_vocabulary_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=1,
    head_size=16,
    rope=RopeConfig(),
    initializer_range=0.3,
)


@pytest.fixture(scope="module")
def decoder():
    return Decoder(CONFIG, rngs=nnx.Rngs(0))


def hidden(decoder, documents, mode, *, first=0):
    """float32 [T, M] of a row of documents; `first` is the id of the anchor."""
    pieces = [Piece(np.asarray(ids, np.int32)) for ids in documents]
    if mode == "anchor":
        pieces = [Piece(np.full(2, first, np.int32), learned=np.zeros(1, bool)), *pieces]
    batch = row_arrays([PackedRow.of(pieces)], T, [np.zeros(1, np.int32)], [mode])
    kernels = KernelConfig(anchor=mode == "anchor")
    fields = (batch["tokens"], batch["positions"], batch["segment_ids"])
    return np.asarray(decoder(*fields, compute_dtype=jnp.float32, kernels=kernels)[0])


@pytest.mark.parametrize("mode", ["intra_document", "open", "anchor"])
def test_a_document_changes_what_comes_after_it_in_open_rows_only(decoder, mode):
    rng = np.random.default_rng(1)
    first, second, third = (rng.integers(1, VOCABULARY, n) for n in (9, 11, 8))
    other = np.append(rng.integers(1, VOCABULARY, 10), second[-1])
    before, after = hidden(decoder, (first, second, third), mode), hidden(decoder, (first, other, third), mode)
    shift = mode == "anchor"
    changed = np.abs(before - after).max(axis=-1) > 0
    assert not changed[: shift + 8].any() and changed[shift + 8 : shift + 18].all()
    assert changed[shift + 18 : shift + 25].all() if mode == "open" else not changed[shift + 18 :].any()


def test_all_documents_see_the_anchor(decoder):
    rng = np.random.default_rng(2)
    documents = [rng.integers(1, VOCABULARY, n) for n in (9, 11)]
    one, other = (hidden(decoder, documents, "anchor", first=first) for first in (0, 5))
    assert (np.abs(one - other).max(axis=-1)[:19] > 0).all()
    np.testing.assert_array_equal(one[19:], other[19:])  # padding sees nothing


def test_a_document_alone_behind_the_anchor_is_what_plain_attention_sees(decoder):
    """The row of one document with an anchor is one sequence that begins with the anchor."""
    ids = np.random.default_rng(3).integers(1, VOCABULARY, 12)
    anchored = hidden(decoder, [ids], "anchor")
    plain = hidden(decoder, [np.concatenate([[0], ids])], "intra_document")
    np.testing.assert_allclose(anchored[:12], plain[:12], atol=1e-5)
