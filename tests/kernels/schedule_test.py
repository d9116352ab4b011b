from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.kernels.attention.schedule import (
    FIRST,
    INNER_FIRST,
    INNER_LAST,
    LAST,
    MASK_CAUSAL,
    MASK_START,
    first_visible,
    list_steps,
)

T, BLOCK = 24, 4


@st.composite
def layouts(draw):
    """int32 [2, T]: documents one after another, then padding."""
    rows = []
    for _ in range(2):
        lengths = draw(st.lists(st.integers(1, T), max_size=8))
        row = np.repeat(np.arange(1, len(lengths) + 1), lengths)[:T]
        rows.append(np.pad(row, (0, T - len(row))))
    return np.stack(rows).astype(np.int32)


def visible(segments, window, anchor):
    """bool [2, T, T], from the definition."""
    distance = np.arange(T)[:, None] - np.arange(T)
    same = (segments[:, :, None] == segments[:, None]) & (distance < window)
    if anchor:
        same |= np.arange(T) == 0
    return same & (distance >= 0) & (segments != 0)[:, :, None]


@settings(max_examples=60, deadline=None)
@given(
    layouts(), st.integers(1, T), st.booleans(), st.booleans(), st.permutations(range(T // BLOCK)), st.integers(1, 6)
)
def test_the_list_holds_every_pair_that_has_work_and_masks_where_needed(
    segments, window, anchor, key_major, order, number
):
    start = first_visible(jnp.asarray(segments), window)
    key_blocks = np.array(order[:number], np.int32)
    query_blocks = np.sort(np.array(order[-number:], np.int32))
    rows_of = np.concatenate([np.arange(block * BLOCK, (block + 1) * BLOCK) for block in query_blocks])
    steps = list_steps(
        start[:, rows_of],
        jnp.asarray(query_blocks * BLOCK),
        jnp.asarray(key_blocks * BLOCK),
        BLOCK,
        anchor=anchor,
        key_major=key_major,
    )
    count = int(steps.total)
    rows, outer, inner, flags = (np.asarray(x)[:count] for x in steps[:4])
    queries, keys = (inner, outer) if key_major else (outer, inner)
    pairs = list(zip(rows.tolist(), queries.tolist(), keys.tolist(), strict=True))
    assert len(set(pairs)) == count

    blocks = visible(segments, window, anchor).reshape(2, T // BLOCK, BLOCK, T // BLOCK, BLOCK)
    blocks = blocks[:, query_blocks][:, :, :, key_blocks]
    work = set(zip(*(x.tolist() for x in np.nonzero(blocks.any((2, 4)))), strict=True))
    assert work <= set(pairs)
    # what has no work is there once for a block that would not be visited, so that its zeros are written
    idle = [pair for pair in pairs if pair not in work]
    for row, query, key in idle:
        alone = not any(p[:2] == (row, query) for p in work) or not any((p[0], p[2]) == (row, key) for p in work)
        # a window or a document may begin in the middle of a block of queries
        assert alone or key_blocks[key] * BLOCK + BLOCK > int(start[row, rows_of[query * BLOCK]])
    for row in range(2):
        assert {p[1] for p in pairs if p[0] == row} == set(range(number))
        assert {p[2] for p in pairs if p[0] == row} == set(range(number))

    unmasked = {pair for pair, flag in zip(pairs, flags, strict=True) if not flag & (MASK_CAUSAL | MASK_START)}
    assert all(blocks[row, query, :, key].all() for row, query, key in unmasked)
    whole = {pair for pair in pairs if blocks[pair[0], pair[1], :, pair[2]].all()}
    assert anchor or unmasked == whole

    for bits, block in (((FIRST, LAST), outer), ((INNER_FIRST, INNER_LAST), inner)):
        for row in range(2):
            for number_of_block in set(block[rows == row].tolist()):
                visits = flags[(rows == row) & (block == number_of_block)]
                assert [bool(flag & bits[0]) for flag in visits] == [True] + [False] * (len(visits) - 1)
                assert [bool(flag & bits[1]) for flag in visits] == [False] * (len(visits) - 1) + [True]
    # an outer block's visits lie together
    ends = [(row, block) for row, block, flag in zip(rows, outer, flags, strict=True) if flag & FIRST]
    assert len(set(ends)) == len(ends) == len(set(zip(rows.tolist(), outer.tolist(), strict=True)))


@pytest.mark.parametrize("lengths", [[T], [6] * 4, [1] * T])
def test_work_follows_the_documents(lengths):
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)[None].astype(np.int32)
    positions = jnp.arange(0, T, BLOCK)
    steps = list_steps(first_visible(jnp.asarray(segments)), positions, positions, BLOCK)
    expected = visible(segments, T, False).reshape(1, T // BLOCK, BLOCK, T // BLOCK, BLOCK).any((2, 4)).sum()
    assert int(steps.total) == expected
