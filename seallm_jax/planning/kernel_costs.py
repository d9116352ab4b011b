"""What kernels cost on a TPU, without a TPU: cycles of compiled kernels times the steps that they take."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.paths import read_json
from seallm_jax.kernels.attention.schedule import FIRST, INNER_FIRST, INNER_LAST, LAST, first_visible, list_steps
from seallm_jax.planning.bundles import CORES, KernelCycles
from seallm_jax.planning.libtpu_environment import LIBTPU_ENVIRONMENT
from seallm_jax.planning.topology import CHIPS

_DUMP_FLAGS = "--xla_jf_dump_to={dumps} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles"
_list_steps = jax.jit(list_steps, static_argnames=("block", "anchor", "key_major"))
_BY_MASK = (0, 2, 1, 3)  # values of MASK_CAUSAL | MASK_START in the order of `tpu_scores.by_mask`


@dataclasses.dataclass(frozen=True)
class Shape:
    """One call on one device: rows, positions, heads."""

    rows: int
    positions: int
    heads: int
    key_value_heads: int
    head_size: int


def read_costs(
    generation: str, shape: Shape, variants: Mapping[str, Mapping[str, Any]], *, document_length: int, timeout: float
) -> dict[str, dict[str, Any]]:
    """Compiles each variant for four chips of a generation and reads the cycles of its kernels.

    Args:
      generation: one of `bundles.CORES`.
      shape: on each device.
      variants: by name: `kind` (ours, splash, tokamax), and blocks as `kernel_child` takes them.
      document_length: for the choice of our blocks.
      timeout: seconds after which the compiler is stopped.

    Returns:
      By name: `kernels` (fields of `KernelCycles` by forward, backward), `outside_cycles` (XLA's estimate for what
      surrounds them), `temporary_bytes`; for ours also `sizes` and `listing_cycles`. Or `error`.

    Raises:
      UsageError: a generation without a table of costs.
      SeallmError: libtpu is not installed, or the process failed.
    """
    request = dataclasses.asdict(shape) | {"document_length": document_length, "variants": dict(variants)}
    # blocks of 2048, which the peers are tried with, take this much
    return _ask_compiler("attention", generation, request, "--xla_tpu_scoped_vmem_limit_kib=98304", timeout)


def read_cross_entropy_costs(
    generation: str,
    tokens: int,
    hidden_size: int,
    vocabulary_size: int,
    dtype: str,
    *,
    matrix_dtype: str | None = None,
    only: Sequence[str] = (),
    timeout: float,
) -> dict[str, dict[str, Any]]:
    """Compiles linear cross-entropy, forward and backward, for one device of a generation.

    Args:
      generation: one of `bundles.CORES`.
      tokens: hidden states.
      hidden_size: of them.
      vocabulary_size: rows of the matrix.
      dtype: of hidden states and matrix.
      matrix_dtype: of the matrix, where it has another.
      only: names of `linear_cross_entropy.ways` to compile; all by default.
      timeout: seconds after which the compiler is stopped.

    Returns:
      By the names of `linear_cross_entropy.ways`: `cycles` (None where kernels are not ours to read),
      `temporary_bytes` and `product_flops`; for our kernels also their `step` cycles and `steps` by their names; or
      `error` and `product_flops`.

    Raises:
      UsageError: a generation without a table of costs.
      SeallmError: libtpu is not installed, or the process failed.
    """
    request = {"tokens": tokens, "hidden_size": hidden_size, "vocabulary_size": vocabulary_size, "dtype": dtype}
    request |= {"matrix_dtype": matrix_dtype or dtype, "only": list(only)}
    return _ask_compiler("cross_entropy", generation, request, "", timeout)


def _ask_compiler(
    operator: str, generation: str, request: Mapping[str, Any], flags: str, timeout: float
) -> dict[str, dict[str, Any]]:
    if generation not in CORES:
        raise UsageError(f"--topology={generation}: cycles are known for {', '.join(CORES)}")
    if importlib.util.find_spec("libtpu") is None:
        raise SeallmError("static figures need the TPU compiler; install it with: pip install libtpu")
    topology = f"{generation}:{'x'.join(['2', '2', '1'][: CHIPS[generation].dimensions])}"
    with tempfile.TemporaryDirectory(prefix="seallm-kernels-") as directory:
        dumps, answer = pathlib.Path(directory) / "dumps", pathlib.Path(directory) / "answer.json"
        dumps.mkdir()
        request = {"operator": operator, "topology": topology, "dumps": str(dumps), **request}
        arguments = f"{_DUMP_FLAGS.format(dumps=dumps)} {flags}"
        environment = os.environ | LIBTPU_ENVIRONMENT | {"LIBTPU_INIT_ARGS": arguments}
        try:
            child = subprocess.run(
                [sys.executable, "-m", "seallm_jax.planning.kernel_child", str(answer)],
                input=json.dumps(request),
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise SeallmError(f"compiling for {generation} took more than {timeout:.0f} s and was stopped") from None
        if not answer.exists():
            lines = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
            raise SeallmError(f"the TPU compiler failed for {generation}: {lines[-1][:300]}")
        return read_json(answer)["costs"]


def packed_cycles(
    kernels: Mapping[str, KernelCycles],
    segment_ids_RxT: np.ndarray,
    shape: Shape,
    forward: int,
    backward: int,
    *,
    window: int | None = None,
    queries: int | None = None,
) -> dict[str, int]:
    """Cycles of our kernels for all given rows.

    Args:
      kernels: forward, backward and, where the queries' gradient has a kernel of its own, backward_queries.
      segment_ids_RxT: any number of rows.
      shape: its rows are not read.
      forward: size of the blocks in the forward kernel.
      backward: size of the blocks in the backward kernels.
      window: how many positions a query sees; all of its document by default.
      queries: how many of a row's last positions are queries, where devices share a row; all by default.
    """
    begin = shape.positions - (queries or shape.positions)
    start_RxT = first_visible(jnp.asarray(segment_ids_RxT), window)[:, begin:]
    H, K = shape.heads, shape.key_value_heads
    cycles = {}
    for name, kernel in kernels.items():
        block, key_major = (forward if name == "forward" else backward), name == "backward"
        firsts = jnp.arange(0, shape.positions, block, dtype=jnp.int32)
        steps = _list_steps(start_RxT, firsts[begin // block :], firsts, block, key_major=key_major)
        flags = np.asarray(steps.flags)[: int(steps.total)]
        if len(kernel.products) != len(_BY_MASK):
            raise SeallmError(f"the {name} kernel has {len(kernel.products)} regions of products instead of 4")
        products = [H * int((flags & 3 == mask).sum()) for mask in _BY_MASK]
        runs = {bit: int((flags & bit != 0).sum()) for bit in (FIRST, LAST, INNER_FIRST, INNER_LAST)}
        if key_major:  # a step for each query head; what is of the keys, once for the heads that share them
            opening, closing = [H * runs[INNER_FIRST], K * runs[FIRST]], [K * runs[LAST], H * runs[INNER_LAST]]
            if "backward_queries" in kernels:
                opening, closing = [K * runs[FIRST]], [K * runs[LAST]]
        else:
            opening, closing = [H * runs[FIRST]], [H * runs[LAST]]
        kept = kernel.keep(len(opening), len(closing))
        cycles[name] = kept.total(H * len(flags), opening, products, closing)
    return cycles


def splash_cycles(
    kernel: KernelCycles, segment_ids_RxT: np.ndarray, shape: Shape, blocks: Sequence[int], *, key_major: bool
) -> int:
    """Cycles of JAX's splash attention: every pair of blocks is a step, those that are not later are computed.

    Args:
      kernel: of the forward or the backward pass.
      segment_ids_RxT: only the number of rows matters.
      shape: of the call.
      blocks: queries and keys of a block.
      key_major: whether keys are the outer blocks, as in the backward pass.
    """
    seen_QxK, diagonal_QxK = _causal(shape.positions, blocks)
    counts = (seen_QxK.size, int(seen_QxK.sum()), int(diagonal_QxK.sum()), seen_QxK.shape[key_major])
    return len(segment_ids_RxT) * _of_peer(kernel, shape.heads, counts)


def tokamax_cycles(
    kernel: KernelCycles, segment_ids_RxT: np.ndarray, shape: Shape, blocks: Sequence[int], *, key_major: bool
) -> int:
    """The same for tokamax, which leaves out pairs whose ranges of ids are disjoint in all rows of a batch.

    Rows beyond whole batches of `shape.rows` are left out, too.
    """
    seen_QxK, diagonal_QxK = _causal(shape.positions, blocks)
    cycles = 0
    for first in range(0, len(segment_ids_RxT) - shape.rows + 1, shape.rows):
        ids_BxT = segment_ids_RxT[first : first + shape.rows]
        low_q, high_q, low_k, high_k = (
            reduce(ids_BxT.reshape(shape.rows, -1, block), axis=2)
            for block in blocks[:2]
            for reduce in (np.min, np.max)
        )
        overlap_BxQxK = (high_q[:, :, None] >= low_k[:, None]) & (high_k[:, None] >= low_q[:, :, None])
        active_QxK = seen_QxK & overlap_BxQxK.any(axis=0)
        active = int(active_QxK.sum())
        counts = (active, active, int((active_QxK & diagonal_QxK).sum()), seen_QxK.shape[key_major])
        cycles += shape.rows * _of_peer(kernel, shape.heads, counts)
    return cycles


def _causal(positions: int, blocks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """bool [Q, K]: pairs of blocks in which some key is visible, and those of them in which not all are."""
    queries, keys = (np.arange(0, positions, block) for block in blocks[:2])
    seen_QxK = queries[:, None] + blocks[0] > keys
    return seen_QxK, seen_QxK & (keys + blocks[1] - 1 > queries[:, None])


def _of_peer(kernel: KernelCycles, heads: int, counts: tuple[int, int, int, int]) -> int:
    """A row's cycles. A kernel has one region of products, or one for whole blocks and then one for the diagonal."""
    steps, active, diagonal, outer = counts
    if len(kernel.products) not in (1, 2):
        raise SeallmError(f"the peer's kernel has {len(kernel.products)} regions of products instead of 1 or 2")
    products = [active] if len(kernel.products) == 1 else [active - diagonal, diagonal]
    once_a_block = [[heads * outer] * len(regions) for regions in (kernel.opening, kernel.closing)]
    return kernel.total(heads * steps, once_a_block[0], [heads * count for count in products], once_a_block[1])
