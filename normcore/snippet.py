"""The code of a configuration, in normcore and in plain PyTorch, ready to run."""

import math
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from normcore.core import Bound, Divides, Method, axis_sizes

LIBRARIES = {"keras": ["import keras"], "flax": ["import flax.linen", "import jax"]}
MODULES = {"linear": "Linear", "conv1d": "Conv1d", "conv2d": "Conv2d", "conv3d": "Conv3d"}


def in_normcore(method: Method, shape: Sequence[int], layout: str, training: bool = True, **settings: Any) -> str:
    """Code that applies the method to a tensor of this shape through normcore; it defines ``y``."""
    sizes = axis_sizes(shape, layout)
    complete = method.settings(settings, sizes)
    # A split is always written: what it splits into is the point of the method.
    said = [p for p in method.params if complete[p.name] != p.default or isinstance(p.domain, Divides)]
    changed = {param.name: complete[param.name] for param in said}
    arguments = "".join(f", {name}={_literal(value)}" for name, value in changed.items())
    lines = ["import torch", "import normcore", ""]
    if method.family == "activation":
        features = _features(method, sizes, layout)
        where = "" if layout == "image" else f", layout={layout!r}"
        lines += [
            f"x = torch.randn{tuple(shape)!r}  # {' '.join(sizes)}",
            f'norm = normcore.layer("{method.key}", {features}{where}{arguments})',
            *(["norm.eval()"] if not training else []),
            "y = norm(x)",
        ]
    elif method.family == "weight":
        lines += [
            f"module = {_module(shape, layout)}",
            f'normcore.reparametrize(module, "{method.key}"{arguments})',
            "y = module.weight",
        ]
    else:
        lines += [
            *_gradient(shape, layout),
            f'clip = normcore.clipper("{method.key}"{arguments})',
            "report = clip(parameters)",
            "y = parameters[0].grad",
        ]
    return "\n".join(lines)


def in_pytorch(method: Method, shape: Sequence[int], layout: str, training: bool = True, **settings: Any) -> str:
    """The same in plain PyTorch, without normcore; it defines ``y``."""
    sizes = axis_sizes(shape, layout)
    complete = method.settings(settings, sizes)
    names, bounds = _names(method, sizes, layout, training, complete)
    if method.family == "activation":
        head = [f"x = torch.randn{tuple(shape)!r}  # {' '.join(sizes)}"]
    elif method.family == "weight":
        head = [f"module = {_module(shape, layout)}"]
    else:
        head = _gradient(shape, layout)
    tail = ["y = parameters[0].grad"] if method.family == "gradient" else []
    if method.state and training and [bound.size for bound in bounds] == [1]:
        head = ["# PyTorch refuses this while training: there is one value for each statistic.", *head]
    template = method.pytorch if isinstance(method.pytorch, str) else method.pytorch(complete | {"training": training})
    return "\n".join(["import torch", "", *head, template.format(**names), *tail])


def in_other(
    method: Method, library: str, shape: Sequence[int], layout: str, training: bool = True, **settings: Any
) -> str | None:
    """The same in Keras or JAX (Flax), on the same axes; None where the library has no such method, or no such setting.

    Their momentum is the weight of the *old* value, one less the weight of the new one in PyTorch and here.
    """
    if library not in method.elsewhere:
        return None
    sizes = axis_sizes(shape, layout)
    complete = method.settings(settings, sizes)
    template = method.elsewhere[library]
    known = {field for _, field, _, _ in Formatter().parse(template)}
    known |= {"momentum"} if "old_share" in known else set()
    if any(complete[param.name] != param.default for param in method.params if param.name not in known):
        return None
    names, _ = _names(method, sizes, layout, training, complete)
    head = [*LIBRARIES[library], "import numpy", ""]
    head.append(f'x = numpy.random.default_rng(0).standard_normal({tuple(shape)!r}, "float32")  # {" ".join(sizes)}')
    return "\n".join([*head, template.format(**names)])


def _names(
    method: Method, sizes: Mapping[str, int], layout: str, training: bool, complete: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Bound]]:
    """What the placeholders of a template stand for, and the regions."""
    shape = tuple(sizes.values())
    last = layout == "tokens"
    space = tuple(i for i, letter in enumerate(sizes) if letter not in "nc")
    bounds = [b for b in method.bound(shape, layout, **complete) if isinstance(b, Bound)]
    reduced = [
        axis for axis, factors in enumerate(bounds[0].factors if bounds else ()) if not all(f.kept for f in factors)
    ]
    names: dict[str, Any] = {name: _literal(value) for name, value in complete.items()}
    names |= sizes
    names |= {
        "training": training,
        "x": "x.transpose(1, 2)" if last else "x",
        "back": ".transpose(1, 2)" if last else "",
        "x3": "x[..., None]" if layout == "vector" else "x",
        "back3": "[..., 0]" if layout == "vector" else "",
        "nd": f"{max(1, len(space))}d",
        "channel": list(sizes).index("c") if "c" in sizes else 0,
        "column": tuple(sizes["c"] if a == "c" else 1 for a in list(sizes)[list(sizes).index("c") :])
        if "c" in sizes
        else (),
        "space": space,
        "reduced": tuple(reduced),
        "features": tuple(shape[axis] for axis in reduced),
    }
    momentum = complete.get("momentum")
    names["old_share"] = round(1 - momentum, 12) if momentum is not None else None
    return names, bounds


def _features(method: Method, sizes: Mapping[str, int], layout: str) -> str:
    """What `normcore.layer` is given: the channels, or all feature sizes where the paper's gain covers them."""
    letters = method.feature_letters(layout)
    return str(sizes["c"]) if letters == ("c",) else repr(tuple(sizes[letter] for letter in letters))


def _module(shape: Sequence[int], layout: str) -> str:
    out, inputs, *kernel = shape
    size = f", kernel_size={tuple(kernel)!r}" if kernel else ""
    return f"torch.nn.{MODULES[layout]}({inputs}, {out}{size})"


def _gradient(shape: Sequence[int], layout: str) -> list[str]:
    if layout == "examples":
        return [
            f"parameters = [torch.nn.Parameter(torch.randn{tuple(shape[1:])!r})]",
            f"parameters[0].grad_sample = torch.randn{tuple(shape)!r}  # the gradient of each example",
        ]
    return [
        f"parameters = [torch.nn.Parameter(torch.randn{tuple(shape)!r})]",
        "parameters[0].square().sum().backward()  # any loss",
    ]


def _literal(value: Any) -> str:
    return f"float('{value}')" if isinstance(value, float) and math.isinf(value) else repr(value)
