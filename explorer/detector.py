"""What the detector says of several methods at once: one warning a method, methods with the same trouble in one."""

from collections.abc import Iterable, Mapping
from typing import Any

import streamlit as st
from torch import Tensor

from normcore import METHODS, diagnose
from normcore.core import plural

Said = tuple[str, str]
"""A sentence, and a remedy."""

SMALL = 2**15
"""Up to so many values a method is run on the tensor, which takes some milliseconds; beyond, the shape must do."""


@st.cache_data(max_entries=2048, show_spinner=False)
def at_shape(
    key: str, shape: tuple[int, ...], layout: str, training: bool, settings: tuple[tuple[str, Any], ...]
) -> Said | None:
    """The first that is to be said of a method at a shape."""
    return _first(key, shape, layout, training, None, dict(settings))


@st.cache_data(max_entries=256, show_spinner=False, hash_funcs={Tensor: lambda x: (x.shape, x.numpy().tobytes())})
def on_tensor(key: str, x: Tensor, layout: str, settings: tuple[tuple[str, Any], ...]) -> Said | None:
    """The first that is to be said of a method on a tensor."""
    return _first(key, tuple(x.shape), layout, True, x, dict(settings))


def _first(
    key: str, shape: tuple[int, ...], layout: str, training: bool, x: Tensor | None, settings: Mapping[str, Any]
) -> Said | None:
    found = diagnose(key, shape, layout, training, x, **settings)
    return (found[0].sentence, found[0].remedy) if found else None


def warn(key: str, x: Tensor, layout: str, settings: Mapping[str, Any]) -> None:
    """Warns of one method on a tensor, where it is named already."""
    known = tuple(settings.items())
    small = x.numel() <= SMALL
    said = on_tensor(key, x, layout, known) if small else at_shape(key, tuple(x.shape), layout, True, known)
    if said:
        st.warning(" ".join(said), icon=":material/warning:")


def tell(found: Iterable[tuple[str, Said | None]], folded: bool) -> None:
    """Warns of methods, named by their keys; folded, in one line that opens."""
    said: dict[Said, list[str]] = {}
    for key, words in found:
        if words:
            said.setdefault(words, []).append(METHODS[key].name)
    if not said:
        return
    lines = [f"**{', '.join(names)}**: {sentence} {remedy}" for (sentence, remedy), names in said.items()]
    if not folded:
        for line in lines:
            st.warning(line, icon=":material/warning:")
        return
    crowd = sum(map(len, said.values()))
    title = f"{plural(crowd, 'method')} {'degenerates' if crowd == 1 else 'degenerate'} here"
    with st.expander(title, icon=":material/warning:"):
        st.markdown("\n".join(f"- {line}" for line in lines))
