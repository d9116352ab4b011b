"""The random models of the parity tests serve here, too."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(
    0, str(pathlib.Path(__file__).parents[2] / "parity")
)  # for random_models, in every import mode of pytest
