from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for small_job, in every import mode of pytest
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "parity"))  # for random_models

import random_models  # noqa: E402, F401  (makes the thorough profile known)
