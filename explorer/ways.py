"""How a visitor gets from one method's page to another's: by name, by descent, and one by one."""

from collections.abc import Sequence

import streamlit as st

from explorer.controls import quoted
from normcore import METHODS, describe
from normcore.core import Method

AWAY = "_on_a_method"
"""Under which name the session remembers that the last page was a method's."""


def chosen(default: str = "batch_norm") -> tuple[Method, str]:
    """A box of all methods by their names, and what to say of a link that asks for none of them.

    The link has the key, which Streamlit's own binding would replace by the name.
    """
    st.session_state[AWAY] = True
    asked = st.query_params.get("key", default)
    key = asked if asked in METHODS else default
    options = sorted(METHODS, key=lambda key: METHODS[key].name.lower())
    named = st.selectbox(
        "Method", options, options.index(key), format_func=lambda key: METHODS[key].name, key=f"method_{key}"
    )
    if named != key:
        st.query_params["key"] = named
        st.rerun()
    name = METHODS[key].name
    wrong = (
        f"The link asks for key={quoted(asked, '')}, but no method has that key; Method is {name}."
        if asked != key
        else ""
    )
    return METHODS[key], wrong


def relatives(method: Method) -> tuple[list[Method], list[Method]]:
    """The methods whose shortcoming it answers, and those that answer one of its own."""
    return [METHODS[key] for key in method.builds_on], [m for m in METHODS.values() if method.key in m.builds_on]


def neighbors(method: Method) -> tuple[Method | None, Method | None]:
    """The method before it and the one after it among those of its kind."""
    members = [other for other in METHODS.values() if describe.kind(other) == describe.kind(method)]
    place = members.index(method)
    return (members[place - 1] if place else None), (members[place + 1] if place + 1 < len(members) else None)


def page_link(method: Method, label: str = "", icon: str | None = None) -> None:
    """A link to a method's page that keeps the session."""
    st.page_link("../pages/method.py", label=label or method.name, icon=icon, query_params={"key": method.key})


def links(title: str, methods: Sequence[Method]) -> None:
    """Links to the pages of methods, in a row behind a title; nothing without methods."""
    if methods:
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.markdown(f"**{title}**", width="content")
            for method in methods:
                page_link(method)
