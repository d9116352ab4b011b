"""Perplexity of documents under n-gram models of KenLM (Heafield 2011)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from seallm_jax.core.errors import SeallmError

SUFFIXES = (".arpa", ".bin", ".binary", ".klm")


def load_perplexity_models(directory: str | pathlib.Path) -> dict[str, Callable[[str], float]]:
    """Language code -> perplexity a word of a text, for each KenLM file `LL.arpa`, `LL.bin` or `LL.binary`.

    A text is scored line by line, in words between spaces: a model of an unsegmented script is trained on characters
    or segments that are separated by spaces, and named `LL.characters.arpa` it is given characters.

    Raises:
      SeallmError: no such directory or model, a file KenLM cannot read, or KenLM is not installed.
    """
    directory = pathlib.Path(directory)
    files = sorted(path for path in directory.glob("*") if path.suffix in SUFFIXES)
    if not files:
        raise SeallmError(f"{directory} has no KenLM model; name them after languages, as km.arpa or km.binary")
    try:
        import kenlm
    except ImportError:
        raise SeallmError("perplexity filters need kenlm: pip install 'seallm_jax[kenlm]'") from None
    models = {}
    for path in files:
        try:
            model = kenlm.Model(str(path))
        except (OSError, RuntimeError) as error:
            raise SeallmError(f"{path} is no KenLM model: {str(error).splitlines()[0]}") from error
        language, *kind = path.name.removesuffix(path.suffix).split(".")
        models[language] = _perplexity(model, characters=kind == ["characters"])
    return models


def _perplexity(model, *, characters: bool) -> Callable[[str], float]:
    def perplexity(text: str) -> float:
        log10, units = 0.0, 0
        for line in text.split("\n"):
            pieces = list("".join(line.split())) if characters else line.split()
            if pieces:
                log10 += model.score(" ".join(pieces))
                units += len(pieces) + 1  # and the end of the line
        return 10.0 ** (-log10 / units) if units else 1.0

    return perplexity
