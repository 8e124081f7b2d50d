"""A method is one file: it is found by lying in its folder, and a file that is no method is an error."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from normcore import METHODS, Method, NormcoreError
from normcore.core import LAYOUTS
from normcore.registry import _method

ROOT = Path(__file__).parents[2]
FILES = [path for path in sorted(ROOT.glob("normcore/methods/*/*.py")) if path.stem != "__init__"]

ONE_FILE = '''
"""Mean removal: each sample loses its mean."""

from torch import Tensor

from normcore.core import Bound, Epsilon, Method, Normed, Paper, Region, center


def mean_removal(x: Tensor, sample: Bound, *, eps: Epsilon = 1e-5) -> Normed:
    """Subtracts the mean of each sample."""
    centered, mean = center(x, sample)
    return Normed(centered, {"mean": sample.spread(mean).detach()})


METHOD = Method(
    fn=mean_removal,
    name="Mean Removal",
    regions=(Region("n c ... -> n"),),
    paper=Paper("Nobody", "Nothing", 1900),
    why="Only a test needs it.",
    formula=r"<x> - <mean> + 0 \\cdot <eps>",
    pytorch="y = x - x.mean(dim={reduced}, keepdim=True)",
    invariant_to=frozenset({"shift"}),
)
'''

USE = """
import json

import torch
from streamlit.testing.v1 import AppTest

import normcore

method = normcore.METHODS["mean_removal"]
assert list(normcore.METHODS)[0] == "mean_removal", "methods are ordered by year"
assert (method.family, method.layouts) == ("activation", ("vector", "signal", "image", "volume"))
assert [param.name for param in method.params] == ["eps"]
x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
norm = normcore.layer("mean_removal", 3)
assert torch.allclose(norm(x).mean((1, 2, 3)), torch.zeros(2, dtype=torch.float64))
(bound,) = method.bound(x.shape)
for index in ((0, 0, 0, 0), (1, 2, 1, 0)):
    moved = normcore.influence(norm, x, index) != 0
    assert sorted(map(tuple, bound.members(index).tolist())) == sorted(map(tuple, moved.nonzero().tolist()))
page = AppTest.from_file("pages/regions.py", default_timeout=60)
page.query_params["method"] = ["mean_removal", "layer_norm"]
page.query_params["eps"] = "0.001"
page.run()
assert not page.exception and not page.warning
shown = [json.loads(plot.proto.json)["alt"] for plot in page.get("bidi_component")]
assert shown[0].startswith("Mean Removal on (n c h w) = (4, 6, 4, 4). 4 statistics, each over 96 values"), shown
assert any("x - \\mu" in latex.value for latex in page.latex)
page.session_state["below"] = "Code"
page.run()
assert any('normcore.layer("mean_removal", 6, eps=0.001)' in code.value for code in page.code)
assert any("x.mean(dim=(1, 2, 3), keepdim=True)" in code.value for code in page.code)
try:
    method(x, eps=-1)
except normcore.NormcoreError as error:
    print(error)
"""


def use_with(name: str, source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the script above against a copy of the house to which one file was added."""
    for room in ("normcore", "explorer", "pages", ".streamlit"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "normcore/methods/activation" / f"{name}.py").write_text(source)
    return subprocess.run(
        [sys.executable, "-c", USE],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_new_file_brings_a_method_with_everything(tmp_path: Path) -> None:
    done = use_with("mean_removal", ONE_FILE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "mean_removal: eps=-1 must be a number from 0 to 1"


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("empty_norm", "", "the file has no METHOD; end it with METHOD = Method(fn=empty_norm, ...)"),
        ("wrong_norm", "METHOD = 3", "the file has no METHOD"),
        ("other_norm", ONE_FILE, "its function is called 'mean_removal'; call it 'other_norm', like the file"),
    ],
)
def test_a_file_that_is_no_method_is_an_error(tmp_path: Path, name: str, source: str, message: str) -> None:
    done = use_with(name, source, tmp_path)
    assert done.returncode == 1
    assert f"NormcoreError: normcore.methods.activation.{name}: {message}" in done.stderr


def test_a_module_without_a_method_is_named() -> None:
    with pytest.raises(NormcoreError, match=r"^some\.where\.new_norm: the file has no METHOD"):
        _method("some.where.new_norm", {"METHOD": object()})


def test_every_file_is_found_and_keyed_by_its_name() -> None:
    files = {path.stem: path.parent.name for path in FILES}
    assert {key: method.family for key, method in METHODS.items()} == files


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_long_file_says_why(path: Path) -> None:
    source = path.read_text()
    lines = len(source.splitlines())
    reasons = re.findall(r"^Longer than most: .+\.$", ast.get_docstring(ast.parse(source)) or "", re.MULTILINE)
    assert lines <= 120, f"{path.name} has {lines} lines: it holds two ideas"
    assert lines <= 80 or reasons, f"{path.name} has {lines} lines: say why ('Longer than most: …') or make it shorter"
    assert lines > 80 or not reasons, f"{path.name} has {lines} lines and says that it is longer than most"


def test_families_and_years_give_the_order() -> None:
    families = list(LAYOUTS)
    order = [(families.index(m.family), m.paper.year, m.key) for m in METHODS.values()]
    assert order == sorted(order)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_method_says_what_it_is(method: Method) -> None:
    texts = [method.name, method.why, method.paper.authors, method.paper.title, method.fn.__doc__]
    assert all(text and text.strip() for text in texts)
    assert method.fn.__doc__ is not None
    assert "Source: " in method.fn.__doc__ and "Shapes: " in method.fn.__doc__
    assert str(method.paper.year) in method.fn.__doc__
    if method.paper.arxiv is not None:
        assert method.paper.arxiv in method.fn.__doc__
        assert method.paper.arxiv.startswith(f"{method.paper.year % 100:02}"), "the year is that of the arXiv number"
    assert method.layouts and method.formula and method.pytorch
    assert {identity.other for identity in method.equals} <= set(METHODS)
    assert set(method.affine) <= method.inputs
    assert ({"state", "training"} <= method.inputs) == bool(method.state)


def test_the_registry_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        METHODS["new"] = METHODS["batch_norm"]
