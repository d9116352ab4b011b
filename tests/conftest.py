"""What the tests of all rooms share: compiled programs, and the order in which workers take them."""

from __future__ import annotations

import os
import pathlib

import pytest

WORKER = "PYTEST_XDIST_WORKER"


def pytest_addoption(parser) -> None:
    parser.addoption(
        "--optimized", action="store_true", help="have LLVM optimize all that tests compile; it takes longer"
    )


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory) -> pathlib.Path:
    """Where compiled programs are kept for the session and for all its workers: many tests compile the same ones."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    root = tmp_path_factory.getbasetemp()
    directory = (root.parent if WORKER in os.environ else root) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compilation_cache.reset_cache()  # it may have looked for a directory already
    return directory


# rooms whose programs run a few times on little data, so that LLVM's optimizations take longer than they save; what
# their tests start as a process of its own is optimized
QUICKLY_COMPILED = ("training", "models", "adapters", "families", "surgery", "objectives", "generation")


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled(request, compiled_programs) -> None:
    import jax

    quick = request.path.parent.name in QUICKLY_COMPILED and not request.config.getoption("--optimized")
    jax.config.update("jax_disable_most_optimizations", quick)


# rooms whose tests take the longest, so that they begin first and no worker is left with one of them at the end
SLOW_ROOMS = ("planning", "kernels", "parity", "multihost", "resume", "training", "cli")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items) -> None:
    """With `--dist loadgroup`, the tests of a file stay on one worker, and so do all that share the finished run.

    So no worker makes again what a module or the session has already.
    """
    if not getattr(config.option, "loadgroup", False):
        return

    def begins(item) -> tuple[bool, int]:
        room = item.path.parent.name
        return "finished_run" not in item.fixturenames, (*SLOW_ROOMS, room).index(room)

    for item in items:
        file = f"{item.path.parent.name}/{item.path.stem}"
        item.add_marker(pytest.mark.xdist_group("finished_run" if "finished_run" in item.fixturenames else file))
    items.sort(key=begins)
