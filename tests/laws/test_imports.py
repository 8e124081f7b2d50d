"""Who may import whom, and that the engine stands alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"streamlit", "plotly", "torch", "numpy"}

# For each part of the house: the packages of weight that it may import, and the parts of the house.
RULES: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "normcore/core": ({"torch"}, ("normcore.core",)),
    "normcore/methods": ({"torch"}, ("normcore.core",)),
    "normcore/lab": ({"torch", "numpy"}, ("normcore",)),
    "normcore/figures": ({"numpy", "plotly"}, ("normcore.figures",)),
    "normcore": ({"torch"}, ("normcore",)),
    "explorer": (HEAVY, ("normcore", "explorer")),
    "pages": ({"streamlit"}, ("normcore", "explorer")),
    "app.py": ({"streamlit"}, ("normcore", "explorer")),
}


def rule(path: str) -> str:
    return max((part for part in RULES if path == part or path.startswith(f"{part}/")), key=len)


def files() -> list[Path]:
    found = [
        ROOT / "app.py",
        *(path for part in ("normcore", "explorer", "pages") for path in ROOT.glob(f"{part}/**/*.py")),
    ]
    return [path for path in found if path.exists()]


def imports(source: str) -> Iterator[str]:
    """All modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def offenses(path: str, source: str) -> list[str]:
    """What a file at this path must not import."""
    packages, parts = RULES[rule(path)]
    found = []
    for name in imports(source):
        top = name.split(".")[0]
        inside = top in {"normcore", "explorer", "pages", "app", "tests"} or name.startswith(".")
        fits = any(name == part or name.startswith(f"{part}.") for part in parts)
        if (inside and not fits) or (top in HEAVY and top not in packages):
            found.append(name)
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_place_allows(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    allowed_by_design = {
        "normcore/__init__.py": ["normcore.figures"],
        "normcore/core/compiled.py": ["numpy"],
        "normcore/core/compiled_columns.py": ["numpy"],
        "normcore/core/compiled_gradients.py": ["numpy"],
        "normcore/core/compiled_noise.py": ["numpy"],
    }
    assert [
        name for name in offenses(relative, path.read_text()) if name not in allowed_by_design.get(relative, [])
    ] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("normcore/methods/activation/new.py", "from normcore.methods.activation.batch_norm import METHOD"),
        ("normcore/methods/activation/new.py", "from normcore.registry import METHODS"),
        ("normcore/methods/activation/new.py", "from .batch_norm import METHOD"),
        ("normcore/core/new.py", "import numpy as np"),
        ("normcore/figures/new.py", "import torch"),
        ("normcore/figures/new.py", "def f():\n    from normcore import METHODS"),
        ("normcore/lab/new.py", "import plotly.graph_objects as go"),
        ("normcore/layer.py", "import streamlit as st"),
        ("pages/new.py", "import torch"),
        ("explorer/new.py", "import pages.region"),
    ],
)
def test_an_import_across_the_house_would_be_seen(path: str, source: str) -> None:
    assert offenses(path, source)


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"streamlit", "plotly"}:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Blocked())
import torch
import normcore
assert normcore.layer("group_norm", 4)(torch.ones(2, 4, 3, 3)).shape == (2, 4, 3, 3)
assert not any(name.split(".")[0] in {"streamlit", "plotly"} for name in sys.modules)
print(normcore.__file__, len(normcore.METHODS))
"""


def run(code: str, cwd: Path, *flags: str) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_engine_needs_neither_streamlit_nor_plotly() -> None:
    run(BLOCKED, ROOT)


def test_the_engine_installs_and_imports_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        text = (ROOT / name).read_text() if (ROOT / name).exists() else name
        (source / name).write_text(text)
    for path in (ROOT / "normcore").rglob("*"):
        if path.suffix == ".py" or path.name == "py.typed":
            copied = source / path.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "-q", ".", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target)], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, count = run(f"import sys; sys.path.insert(0, {str(target)!r})\n{BLOCKED}", tmp_path).split()
    assert Path(where).is_relative_to(target)
    assert int(count) == len(list((ROOT / "normcore/methods").glob("*/[!_]*.py")))
    assert (target / "normcore" / "py.typed").exists()


def test_pages_keep_no_state_of_their_own() -> None:
    for path in (ROOT / "pages").glob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "session_state" not in names, path
