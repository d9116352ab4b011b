"""What the TPU compiler made of a program, as it writes it down itself."""

from __future__ import annotations

import pathlib
from typing import Any


def compile_with_text(lowered: Any, directory: pathlib.Path) -> tuple[Any, pathlib.Path | None]:
    """Compiles a lowered program for a TPU and finds its text, which `hlo_program.parse_hlo` reads.

    `compiled.as_text()` would do for most: no version of JAX can read all programs that libtpu hands over.

    Args:
      lowered: of `jax.jit(...).lower(...)`.
      directory: an empty one, for what the compiler writes.

    Returns:
      The program, and the file with the text; None where the compiler wrote none.
    """
    compiled = lowered.compile(compiler_options={"xla_dump_to": str(directory), "xla_dump_hlo_as_text": True})
    texts = list(directory.glob("*.after_codegen.txt"))
    return compiled, texts[0] if len(texts) == 1 else None
