"""Which implementations of the heavy operators a program uses."""

from __future__ import annotations

import dataclasses
from typing import Literal

from seallm_jax.core.require import require


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """Attention and the linear cross-entropy.

    `auto` takes the fastest implementation that can serve the devices and shapes. A name takes that one and no other:
    where it cannot serve, the run ends with an error that says why.

    Attributes:
      attention: see `seallm_jax.kernels.attention.api.attention`.
      cross_entropy: see `seallm_jax.kernels.cross_entropy.api.linear_log_probability`.
      context_parallelism: what attention does where `mesh.context` splits a row: gather its keys and values on all
        devices, or pass them around a ring, which needs less memory and gives all devices the same work.
      document_length: usual length of a document as its tokens see it (sum of squares over sum), by which attention
        chooses its blocks. 0 measures it on the packed rows; where there are none, it is the row's.
      anchor: whether every position also sees the first one of its row. Stages that train on rows which
        `packing.mode = anchor` has made set it themselves.
    """

    attention: Literal["auto", "reference", "chunked_xla", "pallas_tpu", "cudnn"] = "auto"
    cross_entropy: Literal["auto", "reference", "chunked_xla", "pallas_tpu"] = "auto"
    context_parallelism: Literal["all_gather", "ring"] = "all_gather"
    document_length: int = 0
    anchor: bool = False

    def __post_init__(self):
        require(self.document_length >= 0, "document_length", self.document_length, "it must not be negative")
