"""The tokenizer of a base model."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig

if TYPE_CHECKING:
    from seallm_jax.tokenization.tokenizer import Tokenizer


def load_base_tokenizer(folder: pathlib.Path, shape: ModelConfig) -> Tokenizer:
    """The tokenizer in a model's folder, of which `shape` is the model's.

    Raises:
      SeallmError: no tokenizer, a damaged one, or one with more tokens than the model has rows.
    """
    from seallm_jax.tokenization.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    if tokenizer.size > shape.vocabulary_size:
        raise SeallmError(
            f"the tokenizer in {folder} has {tokenizer.size} tokens but the model only {shape.vocabulary_size} rows: "
            "they do not belong together"
        )
    return tokenizer
