"""Finds every method: each file in the folders below `normcore.methods` ends in METHOD, and nothing lists them."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from normcore.core import LAYOUTS, Method, NormcoreError


def discover() -> Iterator[Method]:
    """The methods of all families, each family in the order of publication.

    Raises:
        NormcoreError: A file has no METHOD, or its function is not called like the file.
    """
    for family in LAYOUTS:
        package = importlib.import_module(f"normcore.methods.{family}")
        modules = (
            importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)
        )
        yield from sorted(
            (_method(module.__name__, vars(module)) for module in modules), key=lambda m: (m.paper.year, m.key)
        )


def _method(module: str, names: Mapping[str, object]) -> Method:
    stem = module.rpartition(".")[2]
    method = names.get("METHOD")
    if not isinstance(method, Method):
        raise NormcoreError(f"{module}: the file has no METHOD; end it with METHOD = Method(fn={stem}, ...)")
    if method.key != stem:
        raise NormcoreError(f"{module}: its function is called {method.key!r}; call it {stem!r}, like the file")
    return method


METHODS: Mapping[str, Method] = MappingProxyType({method.key: method for method in discover()})


def method(key: str, family: str | None = None) -> Method:
    """The method with this key, refused in a sentence when there is none (or none of the family)."""
    found = METHODS.get(key) if isinstance(key, str) else None
    if found is None or (family and found.family != family):
        known = [k for k, m in METHODS.items() if not family or m.family == family]
        close = get_close_matches(str(key).lower(), known, 5, 0.5)
        kind = f"{family} method" if family else "method"
        few = f"try {', '.join(close)}" if close else f"there are {', '.join(known[:5])}"
        hint = f"it is a {found.family} method" if found else f"{few} (of {len(known)} in normcore.METHODS)"
        raise NormcoreError(f"no {kind} is called {key!r}; {hint}")
    return found
