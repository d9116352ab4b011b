"""Where the parameters of adapters and of quantised kernels lie on a mesh, from where the kernel would lie."""

from __future__ import annotations

from collections.abc import Mapping

PARAMETERS = ("lora_a", "lora_b", "new_rows", "codes", "scales")


def adapter_axes(path: str, axes: Mapping[str, tuple[str, ...]]) -> tuple[str | None, ...] | None:
    """Logical axes of a parameter that an adapter brings in, or None for any other path.

    Args:
      path: dotted path, perhaps behind a prefix such as an optimizer's `mu.`.
      axes: those of the kernels, by path.
    """
    owner, _, name = path.rpartition(".")
    if name not in PARAMETERS:
        return None
    owner = owner.removesuffix(".kernel")
    found = [known for known in axes if f".{owner}.kernel".endswith(f".{known}")]
    if not found:
        return None
    kernel = axes[found[0]]
    if name == "new_rows":
        return kernel
    layers = kernel[:1] if kernel[0] == "layers" else ()
    inputs, outputs = _sides(owner, kernel[len(layers) :])
    if name == "lora_a":
        return (*layers, *inputs, None)
    if name == "lora_b":
        return (*layers, None, *outputs)
    return (*layers, inputs[0], *outputs)  # all inputs as one axis, split as its outermost dimension


def _sides(owner: str, kernel: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(axes that are summed over, axes of the result)."""
    if owner.endswith("head"):
        return kernel[1:], kernel[:1]
    inputs = 2 if owner.endswith("output") else 1
    return kernel[:inputs], kernel[inputs:]
