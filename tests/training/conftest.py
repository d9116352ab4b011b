"""Compiled programs are kept for the session: several tests run the same small step."""

from __future__ import annotations

import pathlib
import sys

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for small_job, in every import mode of pytest

OPTIONS = {"jax_persistent_cache_min_compile_time_secs": 0.5, "jax_persistent_cache_min_entry_size_bytes": 0}


@pytest.fixture(scope="session")
def compilation_directory(tmp_path_factory):
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module", autouse=True)
def keep_compiled_programs(compilation_directory):
    options = OPTIONS | {"jax_compilation_cache_dir": compilation_directory}
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
