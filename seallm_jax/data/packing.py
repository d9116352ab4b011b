"""Documents to pieces, and pieces to rows: best fit, longest first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np


def split_ids(ids: np.ndarray, sequence_length: int) -> list[np.ndarray]:
    """Cuts a document of n + 1 ids into parts of at most `sequence_length` positions.

    Parts overlap by one id, the last target of one being the first input of the next, so that every target is kept.
    A document without a target (fewer than two ids) has no parts.
    """
    return [ids[start : start + sequence_length + 1] for start in range(0, len(ids) - 1, sequence_length)]


def pack(lengths: Sequence[int] | np.ndarray, capacity: int, *, maximum_items: int = 0) -> list[list[int]]:
    """Best-fit decreasing: each item, longest first, goes to the fullest row that still has room for it.

    The rows that are open are kept by the room they have left, and which rooms exist as the bits of one integer, so
    that an item costs O(capacity / 64) at most.

    Args:
      lengths: positions of each item, 1 .. capacity.
      capacity: positions of a row.
      maximum_items: items per row at most; 0 for any number.

    Returns:
      Rows of item indices. Every index occurs once; the lengths in a row sum to `capacity` at most.

    Raises:
      ValueError: a length below 1 or above `capacity`.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= capacity):
        raise ValueError(f"lengths must lie between 1 and {capacity}, got {lengths.min()} .. {lengths.max()}")
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r: a row with room for exactly r positions is open
    order = np.argsort(-lengths, kind="stable")
    for item, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
            rows[row].append(item)
        else:
            room, row = capacity, len(rows)
            rows.append([item])
        room -= length
        if room and (not maximum_items or len(rows[row]) < maximum_items):
            if not by_room[room]:
                rooms |= 1 << room
            by_room[room].append(row)
    return rows


def fill_gaps(
    lengths: Sequence[int] | np.ndarray, rows: list[list[int]], capacity: int, minimum_fill: float
) -> list[list[tuple[int, int, int]]]:
    """Cuts a few items so that the rows are full to `minimum_fill` together, or as few as there can be.

    The emptiest rows are dissolved, as many as necessary, and what they held goes into the widest gaps of the others.

    Args:
      lengths: positions of each item.
      rows: rows of item indices, from `pack`.
      capacity: positions of a row.
      minimum_fill: share of all positions that is to be in use.

    Returns:
      Rows of (item, start, stop): positions start .. stop - 1 of an item. The spans of an item do not overlap and cover
      it; an item that was not cut is (item, 0, length).
    """
    used = [sum(int(lengths[item]) for item in row) for row in rows]
    spans = [[(item, 0, int(lengths[item])) for item in row] for row in rows]
    total = sum(used)
    enough = max(-(-total // capacity), int(total / (minimum_fill * capacity)))
    if len(rows) <= enough:
        return spans
    order = sorted(range(len(rows)), key=lambda row: (-used[row], row))
    kept, dissolved = sorted(order[:enough]), sorted(order[enough:])
    gaps = [(used[row] - capacity, row) for row in kept if used[row] < capacity]  # negative: the widest comes first
    heapq.heapify(gaps)
    for item, start, stop in (span for row in dissolved for span in spans[row]):
        while start < stop:
            gap, row = heapq.heappop(gaps)
            end = min(stop, start - gap)
            spans[row].append((item, start, end))
            if gap + end - start < 0:
                heapq.heappush(gaps, (gap + end - start, row))
            start = end
    return [spans[row] for row in kept]
