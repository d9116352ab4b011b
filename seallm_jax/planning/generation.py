"""Compiles batched decoding for a TPU slice, without a TPU: memory of the cache, and tokens per second."""

from __future__ import annotations

import dataclasses
from typing import Any

from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import GenerationConfig, MeshConfig, ModelConfig
from seallm_jax.planning.compile import asked_compiler, predicted_time
from seallm_jax.planning.kernel_seconds import KernelSeconds
from seallm_jax.planning.step_time import StepTime
from seallm_jax.planning.topology import Topology


@dataclasses.dataclass(frozen=True)
class GenerationPlan:
    """Memory of generation on each device of a TPU slice, and its predicted times. Bytes are per device.

    Attributes:
      topology: the slice, such as v5e:2x2.
      devices: JAX devices in it.
      mesh: devices by mesh axis.
      rows: prompts that are continued together.
      positions: tokens of the longest prompt.
      new_tokens: of each row.
      parameter_bytes: parameters, float32 as a run keeps them.
      cache_bytes: keys and values; 0 where reading the prompts alone does not fit.
      temporary_bytes: of the whole program: the cache and activations.
      peak_bytes: the most memory in use at any time.
      capacity_bytes: memory of a device that a program can use.
      needed_bytes: what the compiler asked for when it refused, else None.
      compile_seconds: how long the compiler took.
      fits: whether generation runs on this slice.
      prefill: predicted time of reading the prompts and choosing the first token.
      decode: predicted time of one more token for each row.
      time_missing: why there is no prediction.
    """

    topology: str
    devices: int
    mesh: dict[str, int]
    rows: int
    positions: int
    new_tokens: int
    parameter_bytes: int
    cache_bytes: int
    temporary_bytes: int
    peak_bytes: int
    capacity_bytes: int
    needed_bytes: int | None
    compile_seconds: float
    fits: bool
    prefill: StepTime | None
    decode: StepTime | None
    time_missing: str

    @property
    def tokens_per_second(self) -> float | None:
        """New tokens of all rows, reading the prompts included; None without a prediction."""
        if self.prefill is None or self.decode is None:
            return None
        return self.rows * self.new_tokens / (self.prefill.seconds + (self.new_tokens - 1) * self.decode.seconds)

    @property
    def exceeds_bytes(self) -> int:
        """By how much it exceeds a device's memory; 0 when it fits."""
        return 0 if self.fits else max((self.needed_bytes or 0) - self.capacity_bytes, 0)

    def to_json(self) -> dict[str, Any]:
        """Plain data, what is derived included."""
        derived = {"tokens_per_second": self.tokens_per_second, "exceeds_bytes": self.exceeds_bytes}
        return dataclasses.asdict(self) | derived


def plan_generation(
    model: ModelConfig,
    generation: GenerationConfig,
    mesh: MeshConfig,
    topology: str,
    *,
    rows: int,
    positions: int,
    timeout: float = 3600,
) -> GenerationPlan:
    """Compiles what `generate` runs for the devices of `topology`.

    Args:
      model: shape of the model, vocabulary sizes filled in.
      generation: dtype and new tokens.
      mesh: mesh axes over the devices of the slice.
      topology: the slice, such as v5e:2x2.
      rows: prompts that are continued together.
      positions: tokens of the longest prompt.
      timeout: seconds after which the compiler is stopped.

    Raises:
      UsageError: an unknown topology, a mesh that does not fit it, or more positions than the model has.
      SeallmError: libtpu is not installed, or the compiler failed other than for lack of memory.
    """
    parsed, new_tokens = Topology.parse(topology), generation.maximum_new_tokens
    if rows < 1 or positions < 1:
        raise UsageError(f"there are {rows} prompts of {positions} tokens; both must be positive")
    if positions + new_tokens > model.longest_text:
        raise UsageError(
            f"prompts of {positions} tokens and {new_tokens} new ones exceed the model's {model.longest_text} positions"
        )
    request = {
        "model": dataclasses.asdict(model),
        "generation": dataclasses.asdict(generation),
        "mesh": dataclasses.asdict(mesh),
        "rows": rows,
        "positions": positions,
        "predict": True,
    }
    kernel_seconds = KernelSeconds(parsed.generation, model=model, timeout=timeout)
    with asked_compiler(request, parsed, timeout) as (answer, directory):
        times = {
            name: predicted_time(directory / name, parsed, answer["places"], kernel_seconds)
            for name in ("start", "advance")
        }
    programs = answer["programs"]
    last = programs.get("whole", programs["start"])  # a part that does not fit leaves out those after it
    (prefill, why_no_prefill), (decode, why_no_decode) = times["start"], times["advance"]
    return GenerationPlan(
        **{key: value for key, value in answer["plan"].items() if key != "peak_flops"},
        rows=rows,
        positions=positions,
        new_tokens=new_tokens,
        temporary_bytes=last["temporary_bytes"],
        peak_bytes=last["peak_bytes"],
        needed_bytes=last["needed_bytes"],
        compile_seconds=sum(program["compile_seconds"] for program in programs.values()),
        fits=last["fits"],
        prefill=prefill,
        decode=decode,
        time_missing=programs["start"]["time_missing"] or why_no_prefill or why_no_decode,
    )
