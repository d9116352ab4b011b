"""Rows of weight tables for the usual modules."""

from __future__ import annotations

from seallm_jax.models.families.weight import Weight


def vocabulary_row(path: str, name: str) -> Weight:
    """An embedding or a head: [vocabulary, hidden] on both sides."""
    return Weight(f"{path}.kernel", f"{name}.weight", ("V", "M"), "VM")


def norm_rows(path: str, name: str, shape: str = "M", *, bias: bool = False) -> tuple[Weight, ...]:
    """A norm's scale, and its bias if it has one; `shape` are the letters of the dimensions, merged on their side."""
    scale = Weight(f"{path}.scale", f"{name}.weight", (shape,), shape)
    return (scale, Weight(f"{path}.bias", f"{name}.bias", (shape,), shape)) if bias else (scale,)


def linear_rows(
    path: str, name: str, into: str, out: str, *, bias: bool, part: int | None = None, parts: int = 1
) -> tuple[Weight, ...]:
    """A linear map, [out, in] on their side and [in, out] on ours, and its bias if it has one.

    Args:
      path: here, without `kernel` or `bias`.
      name: in a checkpoint, without `weight` or `bias`.
      into: letters of the input's dimensions.
      out: letters of the output's dimensions; with P for a fused tensor, as in `Weight`.
      bias: whether it has one.
      part: see `Weight`.
      parts: see `Weight`.
    """
    ours = out.replace("P", "")
    kernel = Weight(f"{path}.kernel", f"{name}.weight", (out, into), into + ours, part, parts)
    return (kernel, Weight(f"{path}.bias", f"{name}.bias", (out,), ours, part, parts)) if bias else (kernel,)
