"""The one theme of all figures: colors for regions, methods and measured strength, and a Plotly template.

Colors that must differ between light and dark are named by a word with a dollar sign, such as "$ink". `resolve` puts
real colors in their place: the app takes them from the page's theme, a notebook from `NEUTRAL`, which reads on both.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import plotly.graph_objects as go

# Twelve colors in which neighbors differ in hue by at least 60 degrees and in lightness by at least 0.1 (OKLCH), also
# for people who confuse red with green or blue with yellow; every color stands out from white and from near-black.
REGION_COLORS = (
    "#6578cd",
    "#e2914e",
    "#07666e",
    "#dea5b1",
    "#714ab2",
    "#edcb4e",
    "#c45c55",
    "#6adaef",
    "#5c7c05",
    "#a6a7e8",
    "#735438",
    "#a9e2ab",
)

# From "does not matter" to "matters most"; lightness falls evenly, so it also reads in gray.
INFLUENCE_COLORS = ("#e9e7dc", "#e8cfa6", "#e6ae76", "#dc8758", "#c45f55", "#9c3f60", "#6c2b63", "#3b1c52")

# Methods that meet in nearly every comparison have a fixed color each; the others take what is left.
METHOD_COLORS: Mapping[str, str] = {
    "none": "#8a8f9c",
    "batch_norm": REGION_COLORS[1],
    "layer_norm": REGION_COLORS[0],
    "instance_norm": REGION_COLORS[4],
    "group_norm": REGION_COLORS[2],
    "rms_norm": REGION_COLORS[6],
}

FONT = "Inter, 'Segoe UI', system-ui, sans-serif"
NUMBER_FONT = "'IBM Plex Mono', ui-monospace, Menlo, monospace"
NEUTRAL: Mapping[str, str] = {
    "$ink": "#6b7280",
    "$muted": "#8b93a1",
    "$line": "rgba(128, 136, 150, 0.28)",
    "$ground": "#ffffff",
    "$accent": REGION_COLORS[0],
}

# Three sides of every cuboid, as if light came from above and from the left: x faces, y faces, z faces.
SHADES = (-0.17, 0.0, 0.20)


def _channels(color: str) -> np.ndarray:
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)], dtype=float)


def mix(color: str, other: str, share: float) -> str:
    """Blend two #rrggbb colors; `share` is the part of the other one."""
    blended = np.rint((1 - share) * _channels(color) + share * _channels(other)).astype(int)
    return "#" + "".join(f"{channel:02x}" for channel in blended)


def shade(color: str, amount: float) -> str:
    """Lighten a color for a positive amount, darken it for a negative one."""
    return mix(color, "#ffffff" if amount > 0 else "#000000", abs(amount))


def readable_on(ground: str) -> str:
    """An ink for words on a color: dark on light ones, white on dark ones."""
    red, green, blue = _channels(ground)
    return "#15171c" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"


def stepped(colors: Sequence[str]) -> list[tuple[float, str]]:
    """Make a color scale that shows every color flat, without a transition to the next."""
    edges = np.linspace(0, 1, len(colors) + 1).tolist()
    return [(edge, color) for i, color in enumerate(colors) for edge in edges[i : i + 2]]


def sequential(reverse: bool = False, faint: bool = True) -> list[tuple[float, str]]:
    """Give the scale of measured influence as a Plotly color scale; without `faint` the weakest can still be seen."""
    colors = INFLUENCE_COLORS if faint else INFLUENCE_COLORS[1:]
    colors = colors[::-1] if reverse else colors
    return list(zip(np.linspace(0, 1, len(colors)).tolist(), colors, strict=True))


def method_colors(keys: Sequence[str]) -> dict[str, str]:
    """Give each method a color: always its own if it has one, otherwise one that nobody else in the list has."""
    chosen = {key: METHOD_COLORS[key] for key in keys if key in METHOD_COLORS}
    for key in keys:
        if key not in chosen:
            start = crc32(key.encode()) % len(REGION_COLORS)
            order = REGION_COLORS[start:] + REGION_COLORS[:start]
            chosen[key] = next((color for color in order if color not in chosen.values()), order[0])
    return chosen


def _skeleton() -> dict[str, Any]:
    """Describe the look of every figure, with words for the colors that depend on light and dark."""
    axis = {
        "gridcolor": "$line",
        "linecolor": "$line",
        "zerolinecolor": "$line",
        "tickcolor": "$line",
        "tickfont": {"family": NUMBER_FONT, "size": 11, "color": "$muted"},
        "title": {"font": {"size": 13, "color": "$ink"}, "standoff": 10},
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "zeroline": False,
        "automargin": True,
        "ticklabeloverflow": "allow",  # the margin makes room; looking for labels to hide measures each of them
    }
    scene_axis = {
        "showbackground": False,
        "showgrid": False,
        "zeroline": False,
        "showspikes": False,
        "showline": False,
        "ticks": "",
        "tickfont": {"family": NUMBER_FONT, "size": 11, "color": "$muted"},
        "title": {"font": {"size": 13, "color": "$ink"}},
    }
    return {
        "font": {"family": FONT, "size": 13, "color": "$ink"},
        "title": {"font": {"size": 15, "color": "$ink"}, "x": 0, "xref": "paper", "xanchor": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(REGION_COLORS),
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "hoverlabel": {
            "bgcolor": "$ground",
            "bordercolor": "$line",
            "font": {"family": FONT, "size": 12, "color": "$ink"},
            "align": "left",
        },
        "legend": {"bgcolor": "rgba(0,0,0,0)", "font": {"size": 12, "color": "$ink"}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "$muted", "activecolor": "$ink"},
        "colorscale": {"sequential": sequential()},
        "xaxis": axis,
        "yaxis": axis,
        "scene": {"xaxis": scene_axis, "yaxis": scene_axis, "zaxis": scene_axis},
    }


def resolve(value: Any, colors: Mapping[str, str] = NEUTRAL) -> Any:
    """Put real colors in the place of the words with a dollar sign, all the way down."""
    if isinstance(value, dict):
        return {key: resolve(part, colors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(part, colors) for part in value]
    return colors.get(value, value) if isinstance(value, str) else value


def follow(figure: str) -> str:
    """Let a finished figure, as JSON, follow light and dark: its neutral inks become words again."""
    for word in ("$ink", "$muted", "$line"):
        figure = figure.replace(f'"{NEUTRAL[word]}"', f'"{word}"')
    return figure


def wire() -> dict[str, Any]:
    """Describe the template for the browser, which knows whether the page is light or dark."""
    return {"layout": _skeleton()}


def template() -> go.layout.Template:
    """Give the template for a notebook: transparent, with inks that read on light and on dark."""
    return go.layout.Template(resolve(wire()))
