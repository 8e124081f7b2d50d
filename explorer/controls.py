"""Widgets from facts: every control is bound to the link, checked again here, and says so when it had to change.

The name of a control is its name in the link. A value that a link asks for in vain, and one that another control has
made impossible, falls back to something that works, with a sentence.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st

from normcore.core import AXIS_WORDS, EMPTY, LETTERS, Divides, Method, OneOf, Param, Range

PUBLISHED = "as published"
SHARED = "the shared threshold"
"""What stands for a threshold that one control gives to many methods; a link means the same on every tab."""
EVERY, ONE = "every region", "one element"
SIZES = (*range(1, 11), 12, 14, 16, 20, 24, 28, 32, 48, 56, 64, 96, 112, 128, 192, 224, 256, 384, 512, 768, 1024)
LARGEST = {"n": 64, "c": 1024, "t": 1024, "l": 1024, "d": 64, "h": 224, "w": 224, "o": 1024, "i": 1024}
USUAL = {"n": 4, "c": 6, "t": 6, "l": 8, "d": 3, "h": 4, "w": 4, "o": 6, "i": 4}


def notices() -> list[str]:
    """What this run had to change, a sentence each, in the order in which it came up."""
    return list(st.session_state.get("_notices", []))


def begin() -> None:
    """Starts a page: what earlier runs had to say is forgotten."""
    st.session_state["_notices"] = []


def choose(label: str, options: Sequence[Any], key: str, default: Any = None, **extra: Any) -> Any:
    """One of a few options, side by side."""
    options = list(options)
    _mend(key, options, label)
    return _asked(
        key,
        label,
        lambda: st.segmented_control(
            label,
            options,
            default=options[0] if default is None else default,
            key=key,
            bind="query-params",
            required=True,
            wrap=True,
            **extra,
        ),
    )


def ask(label: str, options: Sequence[str], key: str) -> str | None:
    """One of a few answers, one below the other, none of them chosen beforehand; None until one is."""
    options = list(options)
    asked = [] if key in st.session_state else st.query_params.get_all(key)
    answer = st.radio(label, options, index=None, key=key, bind="query-params")
    if asked and asked != [answer]:
        _say(f"The link answers {quoted(', '.join(asked))}, but that is none of the answers; choose one.")
    return answer


def pick(label: str, options: Sequence[str], key: str, default: str) -> str:
    """One of many options, in a list that drops down."""
    _mend(key, options, label)
    position = list(options).index(default)
    return _asked(
        key,
        label,
        lambda: st.selectbox(label, options, index=position, key=key, bind="query-params"),
        ", ".join(options),
    )


def select(label: str, options: Sequence[Any], key: str, default: Any, words: Callable[[Any], str] = str) -> Any:
    """One of several options, on a slider."""
    options = list(options)
    _mend(key, options, label)
    if len(options) == 1:
        return options[0]
    return _asked(
        key,
        label,
        lambda: st.select_slider(label, options, value=default, key=key, format_func=words, bind="query-params"),
        _range(options, words),
        words,
    )


def several(label: str, options: Sequence[str], key: str, default: Sequence[str], most: int) -> list[str]:
    """One to `most` of many options, in the order chosen; none at all is the default."""
    _mend_several(key, options, default, label)
    cleared = st.session_state.get(key) == []
    asked = [] if key in st.session_state else [one for one in st.query_params.get_all(key) if one]
    chosen = st.multiselect(label, options, default=default, key=key, max_selections=most, bind="query-params")
    known = [option for option in chosen if option in options][:most] or list(default)
    unknown = [quoted(option) for option in asked if option not in options]
    if cleared and known:
        _say(f"No {label.lower()} are chosen; shown: {', '.join(known)}.")
    if unknown:
        _say(f"No {label.lower().rstrip('s')} here is called {' or '.join(unknown[:4])}; shown: {', '.join(known)}.")
    if len(asked) - len(unknown) > most:
        _say(f"The link asks for {len(asked)} {label.lower()}, but {most} fit side by side; shown: {', '.join(known)}.")
    return known


def text(label: str, key: str, hint: str) -> str:
    """A few words, to search for."""
    return st.text_input(label, key=key, placeholder=hint, max_chars=60, bind="query-params", type="default").strip()


def sizes(layout: str, usual: Mapping[str, int] = USUAL, largest: Mapping[str, int] = LARGEST) -> tuple[int, ...]:
    """The size of each axis of a layout, on sliders called like the axes: N, C, H, W."""
    chosen = []
    for letter in LETTERS[layout]:
        options = [size for size in SIZES if size <= largest[letter]]
        label = f"{AXIS_WORDS[letter].capitalize()}s, {letter.upper()}"
        chosen.append(select(label, options, letter.upper(), usual[letter]))
    return tuple(chosen)


def paste(label: str, key: str, hint: str, most: int) -> str:
    """Many lines of a visitor's own text; a link cannot hold them. The caller judges what is in them."""
    return st.text_area(label, key=key, placeholder=hint, max_chars=most, height=160)


def upload(label: str, types: Sequence[str], megabytes: int, key: str) -> tuple[bytes, str] | None:
    """A visitor's file as its bytes and its name; a link cannot hold it. The caller judges what is in it."""
    file = st.file_uploader(label, type=list(types), max_upload_size=megabytes, key=key)
    return None if file is None else (file.getvalue(), file.name)


def position(layout: str, shape: Sequence[int]) -> tuple[int, ...]:
    """One element of the tensor, on sliders called like the axes: n, c, h, w."""
    index = []
    for letter, size in zip(LETTERS[layout], shape, strict=True):
        label = f"{AXIS_WORDS[letter].capitalize()} {letter}"
        if size == 1:
            index.append(0)
            continue
        _clamp(letter, size - 1, label)
        index.append(
            _asked(
                letter,
                label,
                lambda label=label, size=size, letter=letter: st.slider(  # type: ignore[misc]
                    label, 0, size - 1, 0, key=letter, bind="query-params"
                ),
                f"0 to {size - 1}",
            )
        )
    return tuple(index)


def settings(methods: Sequence[Method], sizes: Mapping[str, int], agreed: bool = True) -> dict[str, dict[str, Any]]:
    """A control for every parameter of the methods, one for all that share its name; complete settings by method.

    It offers what all of these methods take; with `agreed` false, what the first takes, whatever the others say to it.
    """
    alike: dict[str, list[Param]] = {}
    for method in methods:
        for param in method.params:
            if agreed or param.name not in alike:
                alike.setdefault(param.name, []).append(param)
    splits = [params for params in alike.values() if isinstance(params[0].domain, Divides)]
    others = [params for params in alike.values() if not isinstance(params[0].domain, Divides)]
    values: dict[str, Any] = {params[0].name: _control(params[0], sizes, among=params) for params in splits}
    if others:
        with st.expander("More settings", icon=":material/tune:"):
            values |= {params[0].name: _control(params[0], sizes, among=params) for params in others}
    return {
        method.key: {
            param.name: param.default if values[param.name] == PUBLISHED else values[param.name]
            for param in method.params
        }
        for method in methods
    }


def own_settings(method: Method, elsewhere: Mapping[str, str]) -> dict[str, Any]:
    """A control for every parameter of one method, its own alone; only what was set.

    `elsewhere` says, for a parameter whose usual value another control gives, what stands for that value.
    """
    found = {
        param.name: _control(param, {}, f"{method.key}_{param.name}", elsewhere.get(param.name, PUBLISHED))
        for param in method.params
        if not isinstance(param.domain, Divides)
    }
    unset = {PUBLISHED, *elsewhere.values()}
    return {name: value for name, value in found.items() if not (isinstance(value, str) and value in unset)}


def put(**values: Any) -> None:
    """Sets controls from a callback, as a preset or a click does.

    A control that is on the page writes itself into the link; for one that is about to appear this does.
    """
    for key, value in values.items():
        if key not in st.session_state:
            st.query_params[key] = value if isinstance(value, list) else str(value)
        st.session_state[key] = value


def presets(named: Mapping[str, Mapping[str, Any]], plain: Mapping[str, Any] = EMPTY) -> None:
    """A row of buttons; each puts controls as it says, and those of `plain` that it does not speak of as they were."""
    with st.container(horizontal=True, gap="small"):
        for name, values in named.items():
            st.button(name, on_click=put, kwargs={**plain, **values}, type="tertiary")


def reach(param: Param, value: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What to put so that a setting's control shows a value; nothing where it does not offer that value."""
    options = _points(param.domain) if isinstance(param.domain, Range) else param.domain.samples(sizes)
    return {_key(param): value} if value in options else {}


def published(method: Method) -> dict[str, Any]:
    """What to put so that the controls on the page, or in its link, show a method's published settings."""
    known = {*st.session_state, *st.query_params}
    return {key: PUBLISHED for p in method.params if not isinstance(p.domain, Divides) and (key := _key(p)) in known}


def _control(
    param: Param, sizes: Mapping[str, int], key: str = "", usual: str = PUBLISHED, among: Sequence[Param] = ()
) -> Any:
    """The control of a parameter; it offers what the parameters of the same name `among` it take too."""

    def fitting(values: Sequence[Any]) -> list[Any]:
        return [v for v in values if all(other.domain.problem(v, sizes) is None for other in among)]

    label = param.name.replace("_", " ").capitalize()
    key = key or _key(param)
    if isinstance(param.domain, Divides):
        options = fitting(param.domain.samples(sizes))
        default = param.default if param.default in options else options[-1]
        value = select(label, options, key, default)
        st.caption(param.domain.describe(value, sizes))
        return value
    if isinstance(param.domain, OneOf):
        return choose(label, [usual, *fitting(param.domain.values)], key, format_func=_words)
    none = param.domain.none
    return select(label, [usual, *fitting(_points(param.domain))], key, usual, lambda value: _words(value, none))


def _key(param: Param) -> str:
    """A setting's name in the link; an axis has the first claim on a letter, and a page on its own draw."""
    return f"setting_{param.name}" if param.name.lower() in (*USUAL, "seed") else param.name


def _points(domain: Range) -> list[Any]:
    low, high = domain.span
    if domain.integer:
        points: list[Any] = list(range(int(low), int(high) + 1))
    elif domain.logarithmic:
        powers = range(int(np.log10(low)), int(np.log10(high)) + 1)
        points = [*([0.0] if domain.low == 0 else []), *(float(f"1e{power}") for power in powers)]
    elif not np.isfinite([low, high]).all():
        points = []
    else:
        points = [round(float(value), 4) for value in np.linspace(low, high, 11)]
    return points + ([None] if domain.none else [])


def _words(value: Any, none: str | None = None) -> str:
    if value is None:
        return none or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def quoted(text: str, mark: str = "'") -> str:
    """What a link says, at most 60 letters of it, so that nothing in it becomes a link, a picture or a formula."""
    text = text[:60]
    plain = re.fullmatch(r"[\w ,.+-]*", text) and "www." not in text.lower()
    return f"{mark}{text}{mark}" if plain else f"`{text.replace('`', mark)}`"


def words(value: Any) -> str:
    """A value as controls write it."""
    return _words(value)


def _asked(
    key: str, label: str, widget: Callable[[], Any], possible: str = "", words: Callable[[Any], str] | None = None
) -> Any:
    """The widget's value, with a sentence where the link asked for something else.

    Only a link that a visitor came with is judged: what a preset or a click has just put reaches the link later.
    """
    asked = st.query_params.get_all(key)
    fresh = asked and key not in st.session_state
    value = widget()
    shown = [(words or _words)(v) for v in (value if isinstance(value, list) else [value])]
    if fresh and not _same(asked, shown):
        hint = f" Possible: {possible}." if possible else ""
        said = quoted(", ".join(asked), "")
        _say(f"The link asks for {key}={said}, but that cannot be; {label} is {', '.join(shown)}.{hint}")
    return value


def _range(options: Sequence[Any], words: Callable[[Any], str]) -> str:
    """The options in words: all of a few, the ends of many."""
    few = [words(option) for option in options]
    return ", ".join(few) if len(few) <= 8 else f"{few[0]} to {few[-1]}, in steps"


def _same(asked: list[str], shown: list[str]) -> bool:
    """Whether a link's words and a widget's value are the same, as text or as numbers."""
    if asked == shown:
        return True
    try:
        return [float(a) for a in asked] == [float(s) for s in shown]
    except ValueError:
        return [a.lower() for a in asked] == [s.lower() for s in shown]


def _mend(key: str, options: Sequence[Any], label: str) -> None:
    """Before a widget is drawn: a value that its options no longer hold moves to the nearest that they do."""
    value = st.session_state.get(key)
    if value is None or value in options:
        return
    numbers = [option for option in options if isinstance(option, int)]
    nearest = min(numbers, key=lambda option: abs(option - value)) if numbers and isinstance(value, int) else options[0]
    st.session_state[key] = nearest
    _say(f"{label} {value} does not fit any more; it is now {nearest}.")


def _mend_several(key: str, options: Sequence[str], default: Sequence[str], label: str) -> None:
    """The same for a list: what its options no longer hold is left out, and if nothing is left, it is the default."""
    value = st.session_state.get(key) or []
    gone = [one for one in value if one not in options]
    if gone:
        kept = [one for one in value if one in options] or list(default)
        st.session_state[key] = kept
        _say(f"{label}: {', '.join(gone)} cannot be chosen any more; it is now {', '.join(kept)}.")


def _clamp(key: str, last: int, label: str) -> None:
    value = st.session_state.get(key)
    if isinstance(value, int) and not 0 <= value <= last:
        st.session_state[key] = min(max(value, 0), last)
        _say(f"{label} {value} lies outside the tensor; it is now {st.session_state[key]}.")


def _say(sentence: str) -> None:
    st.session_state.setdefault("_notices", []).append(sentence)
