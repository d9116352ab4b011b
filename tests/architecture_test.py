"""The arrows between the rooms, and the house rules that a machine can check."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "seallm_jax"
CORE = {"core"}
TRAINING = CORE | {"data", "tokenization", "kernels", "models", "objectives"}
MAY_IMPORT = {
    "core": set(),
    "corpus": CORE,
    "tokenization": CORE,
    "data": CORE | {"tokenization"},
    "kernels": CORE,
    "models": CORE | {"kernels"},
    "objectives": CORE | {"kernels", "models"},
    "training": CORE | {"data", "models", "objectives"},
    "planning": TRAINING | {"training", "generation"},
    "interop": CORE | {"models"},
    "generation": CORE | {"models"},
    "evaluation": CORE | {"data", "kernels", "models", "generation"},
    "cli": {path.name for path in PACKAGE.iterdir() if path.is_dir()},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: pathlib.Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else ""


def imported_modules(path: pathlib.Path) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def test_every_room_is_in_the_table():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    room = room_of(path)
    for name in imported_modules(path):
        parts = name.split(".")
        assert parts[0] != "torch", f"{path} imports torch"
        if parts[0] == "seallm_jax" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir() and room:
            assert parts[1] in MAY_IMPORT[room] | {room}, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_house_rules(path):
    text = path.read_text(encoding="utf-8")
    limit = 600 if room_of(path) == "kernels" else 400
    assert len(text.splitlines()) <= limit, f"{path} is longer than {limit} lines"
    assert path.name != "utils.py"
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    names = imported_modules(path)
    assert not names & {"pickle", "dill", "cloudpickle"}
    assert "trust_remote_code" not in text


def test_the_library_needs_no_command_line():
    users = [path for path in FILES if room_of(path) not in ("cli", "")]
    assert not [p for p in users if any(name.startswith("seallm_jax.cli") for name in imported_modules(p))]
