"""What calls of this package's kernels take on a TPU, from their compiled bundles."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.kernels.cross_entropy.pallas_tpu import CHUNK, choose_blocks
from seallm_jax.planning.bundles import CORES, KernelCycles
from seallm_jax.planning.hlo_program import Array
from seallm_jax.planning.kernel_call import KernelCall
from seallm_jax.planning.kernel_costs import Shape, packed_cycles, read_costs, read_cross_entropy_costs
from seallm_jax.planning.topology import RATES

_MOST_ROWS = 4  # of a compiled attention kernel; more change nothing in it
_DTYPES = {"bf16": "bfloat16", "f32": "float32"}


class KernelSeconds:
    """Predicted seconds of attention and cross-entropy kernels. Each shape is compiled once, in a child process.

    Of devices that share a row, the one with its last positions counts, which has most to do; devices in a ring take
    each turn as if it were a row of its own. A soft cap on logits is not counted.
    """

    def __init__(
        self, generation: str, *, document_length: int = 0, model: ModelConfig | None = None, timeout: float = 600
    ) -> None:
        """
        Args:
          generation: of the chip; kernels of generations without `bundles.CORES` have no prediction.
          document_length: of all documents of a packed row; 0 when one document fills each row.
          model: for its soft cap on scores, ALiBi and sliding windows; none of them by default.
          timeout: seconds after which the compiler is stopped.
        """
        self._generation, self._document_length, self._timeout = generation, document_length, timeout
        self._kind = {} if model is None else _kind(model)
        self._windows: Sequence[int | None] = [None] if model is None else _windows(model)
        self._attention_kernels = functools.cache(self._compile_attention)
        self._cross_entropy_steps = functools.cache(self._compile_cross_entropy)
        self._seconds = functools.cache(self._predict)

    def __call__(self, call: KernelCall) -> float | None:
        """Seconds of a call; None for a kernel of somebody else.

        Raises:
          SeallmError: libtpu is not installed, or the compiler failed.
        """
        return self._seconds(call) if self._generation in CORES else None

    def _predict(self, call: KernelCall) -> float | None:
        if call.name.startswith("packed_attention_"):
            cycles: float = self._attention_cycles(call.name.removeprefix("packed_attention_"), call)
        elif call.name.startswith("linear_cross_entropy_"):
            cycles = self._cross_entropy_cycles(call)
        else:
            return None
        return cycles / CORES[self._generation].clock_hz

    def _attention_cycles(self, name: str, call: KernelCall) -> float:
        tensors = [array for array in call.operands if len(array.shape) == 4]
        blocks = [array.shape[0] for array in call.operands if array.dtype == "s32" and len(array.shape) == 1]
        if len(tensors) < 2 or len(blocks) < 3 or tensors[0].dtype not in _DTYPES:
            raise SeallmError(f"a call of {call.name} is not understood: {_described(call.operands)}")
        (B, H, T, D), (_, K, S, _) = tensors[0].shape, tensors[1].shape
        _, query_blocks, _ = blocks[:3]  # behind the list of steps
        block = T // query_blocks
        kernels = self._attention_kernels(Shape(min(B, _MOST_ROWS), S, H, K, D), block)
        # the gradient of keys and values runs with another order of heads where that of queries has its own kernel
        related = {key: kernel for key, kernel in kernels.items() if key.startswith(name.partition("_")[0])}
        shape = Shape(1, S, H, K, D)
        ids_1xS = np.arange(S, dtype=np.int32)[None] // (self._document_length or S) + 1
        by_window = {
            window: packed_cycles(related, ids_1xS, shape, block, block, window=window, queries=T)[name]
            for window in set(self._windows)
        }
        total = B * sum(by_window[window] for window in self._windows)
        cores = CORES[self._generation].cores
        heads = H if name == "forward" or name == "backward_queries" else K  # are shared by the cores
        return total / len(self._windows) * math.ceil(heads / cores) / heads

    def _compile_attention(self, shape: Shape, block: int) -> dict[str, KernelCycles]:
        sizes = {"forward": block, "backward": block}
        variants = {"ours": {"kind": "ours", "sizes": sizes, **self._kind}}
        length, timeout = self._document_length, self._timeout
        costs = read_costs(self._generation, shape, variants, document_length=length, timeout=timeout)["ours"]
        if "error" in costs:
            raise SeallmError(f"the attention kernel does not compile for {self._generation}: {costs['error']}")
        return {
            name: KernelCycles(cycles["step"], *(tuple(cycles[part]) for part in ("opening", "products", "closing")))
            for name, cycles in costs["kernels"].items()
        }

    def _cross_entropy_cycles(self, call: KernelCall) -> float:
        tensors = [array for array in call.operands if len(array.shape) == 2 and array.dtype in _DTYPES]
        if len(tensors) < 2:
            raise SeallmError(f"a call of {call.name} is not understood: {_described(call.operands)}")
        hidden, matrix = tensors[:2]
        (N, M), rows = hidden.shape, matrix.shape[0]
        if call.name.endswith("d_logits"):
            rows = call.results[0].shape[1]  # of a chunk of the matrix
        itemsizes = hidden.nbytes // hidden.size, matrix.nbytes // matrix.size
        blocks = choose_blocks(RATES[self._generation].device_kind, N, M, *itemsizes)
        step = self._cross_entropy_steps(blocks.hidden, M, hidden.dtype, matrix.dtype)[call.name]
        return step * (N // blocks.hidden) * math.ceil(rows / blocks.matrix) / CORES[self._generation].cores

    def _compile_cross_entropy(self, block: int, hidden_size: int, dtype: str, matrix_dtype: str) -> dict[str, int]:
        """Cycles of a step, by kernel; three blocks of hidden states get no larger block than one."""
        way = "seallm pallas_tpu"
        costs = read_cross_entropy_costs(
            self._generation,
            3 * block,
            hidden_size,
            CHUNK,
            _DTYPES[dtype],
            matrix_dtype=_DTYPES[matrix_dtype],
            only=[way],
            timeout=self._timeout,
        )[way]
        if "error" in costs:
            raise SeallmError(f"the cross-entropy kernel does not compile for {self._generation}: {costs['error']}")
        return {name: cost["step"] for name, cost in costs.items() if isinstance(cost, dict)}


def _kind(model: ModelConfig) -> dict[str, float | bool]:
    return {"soft_cap": model.attention_soft_cap, "alibi": model.positions == "alibi"}


def _windows(model: ModelConfig) -> list[int | None]:
    """Of the layers in turn, which all call the same kernel."""
    local = model.local_layers or (False,)
    return [model.sliding_window if is_local else None for is_local in local]


def _described(arrays: Sequence[Array]) -> str:
    return ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
