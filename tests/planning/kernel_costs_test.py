"""Steps of known layouts times made-up cycles; and the kernels of a real compile."""

from __future__ import annotations

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.planning.bundles import CORES, KernelCycles
from seallm_jax.planning.kernel_costs import (
    Shape,
    packed_cycles,
    read_costs,
    read_cross_entropy_costs,
    splash_cycles,
    tokamax_cycles,
)

SHAPE = Shape(2, 512, 4, 2, 128)
FORWARD = KernelCycles(1, (10,), (10**2, 10**4, 10**6, 10**8), (20,))
BACKWARD = KernelCycles(1, (10, 30), (10**2, 10**4, 10**6, 10**8), (40, 20))
PEER = KernelCycles(1, (10,), (10**3, 10**6), (20,))


def row(*lengths: int) -> np.ndarray:
    ids = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return np.pad(ids, (0, 512 - len(ids))).astype(np.int32)


def test_one_document_takes_the_triangle():
    found = packed_cycles({"forward": FORWARD, "backward": BACKWARD}, row(512)[None], SHAPE, 128, 128)
    # blocks of 128: 6 below the diagonal and 4 on it, for each of 4 query heads
    products = 4 * (6 * 10**2 + 4 * 10**6)
    assert found["forward"] == products + 4 * 10 + 4 * 4 * (10 + 20)
    # what is of the keys, once for both query heads of a key head
    assert found["backward"] == products + 4 * 10 + 4 * 4 * (10 + 20) + 2 * 4 * (30 + 40)


def test_documents_take_their_own_blocks():
    # two documents that meet at the border of blocks, and one that begins within a block
    found = packed_cycles({"forward": FORWARD}, np.stack([row(256, 256), row(64, 448)]), SHAPE, 128, 128)
    aligned = 4 * (2 * 10**2 + 4 * 10**6)
    # the first block of keys is bounded for its own queries and for later ones
    crossing = 4 * (3 * 10**2 + 3 * 10**4 + 3 * 10**6 + 10**8)
    steps = (6 + 10) * 4 * 1 + 2 * 4 * 4 * (10 + 20)
    assert found["forward"] == aligned + crossing + steps


def test_gradient_of_queries_in_a_kernel_of_its_own():
    keys = KernelCycles(1, (30,), (10**2, 10**4, 10**6, 10**8), (40,))
    found = packed_cycles({"backward": keys, "backward_queries": FORWARD}, row(512)[None], SHAPE, 512, 128)
    products = 4 * (6 * 10**2 + 4 * 10**6) + 4 * 10
    assert found == {"backward": products + 2 * 4 * 70, "backward_queries": products + 4 * 4 * 30}


def test_another_number_of_regions_is_refused():
    with pytest.raises(SeallmError, match="2 regions of products instead of 4"):
        packed_cycles({"forward": PEER}, row(512)[None], SHAPE, 128, 128)
    with pytest.raises(SeallmError, match="4 regions of products"):
        splash_cycles(FORWARD, row(512)[None], SHAPE, (128, 128), key_major=False)


@pytest.mark.parametrize("key_major", [False, True])
def test_splash_walks_all_pairs_whatever_the_documents(key_major):
    one = KernelCycles(1, (10,), (10**3,), (20,))
    for ids in (row(512), row(*[1] * 512)):
        found = splash_cycles(one, ids[None], SHAPE, (128, 128), key_major=key_major)
        assert found == 4 * (16 + 10 * 10**3 + 4 * 30)
    # wide blocks of queries: 2 x 4 pairs, 6 of them seen
    found = splash_cycles(one, row(512)[None], SHAPE, (256, 128), key_major=key_major)
    assert found == 4 * (8 + 6 * 10**3 + (4 if key_major else 2) * 30)


def test_tokamax_takes_what_any_row_of_the_batch_needs():
    def count(*rows):
        return tokamax_cycles(PEER, np.stack(rows), SHAPE, (128, 128), key_major=False)

    whole = 4 * (10 + 6 * 10**3 + 4 * 10**6 + 4 * 30)
    halves = 4 * (6 + 2 * 10**3 + 4 * 10**6 + 4 * 30)
    assert count(row(512), row(512)) == 2 * whole
    assert count(row(256, 256), row(256, 256)) == 2 * halves
    assert count(row(256, 256), row(512)) == 2 * whole
    # each batch has its own; what does not fill one is left out
    assert count(row(256, 256), row(256, 256), row(512), row(512), row(512)) == 2 * halves + 2 * whole


def test_kernels_of_a_real_compile():
    pytest.importorskip("libtpu")
    sizes = {"forward": 128, "forward_tile": 128, "backward": 128, "backward_tile": 128}
    costs = read_costs(
        "v5e",
        SHAPE,
        {"ours": {"kind": "ours", "sizes": sizes}, "bad": {"kind": "ours", "sizes": sizes | {"vmem_bytes": 1000}}},
        document_length=0,
        timeout=600,
    )
    assert costs["bad"]["error"]
    ours = costs["ours"]
    assert ours["sizes"] | sizes == ours["sizes"]
    assert 0 < ours["listing_cycles"] < ours["outside_cycles"]
    for name, products in (("forward", 2), ("backward", 5)):
        kernel = ours["kernels"][name]
        assert len(kernel["products"]) == 4 and 100 < kernel["step"] < 1000
        # not faster than the matrix units
        assert min(kernel["products"]) >= products * 2 * 128**3 / 131_072
    with pytest.raises(UsageError, match="cycles are known for v5e, v5p, v6e"):
        read_costs("v4", SHAPE, {}, document_length=0, timeout=1)


def test_cross_entropy_of_a_real_compile():
    pytest.importorskip("libtpu")
    N, M, V = 1024, 256, 16384
    costs = read_cross_entropy_costs("v5p", N, M, V, "bfloat16", timeout=600)
    ours, chunked, plain = (costs[name] for name in ("seallm pallas_tpu", "seallm chunked_xla", "full logits"))
    assert ours["product_flops"] * 3 == plain["product_flops"] * 4 == 4 * 3 * 2 * N * M * V
    assert ours["temporary_bytes"] < plain["temporary_bytes"] / 4
    for name in ("linear_cross_entropy_statistics", "linear_cross_entropy_d_logits"):
        kernel = ours[name]
        # one product, not faster than the matrix units of one core
        assert kernel["step"] * kernel["steps"] * CORES["v5p"].flops_per_cycle / 2 > 2 * N * M * V
    for cost in (ours, chunked, plain):
        assert cost["cycles"] > plain["product_flops"] / CORES["v5p"].flops_per_cycle
