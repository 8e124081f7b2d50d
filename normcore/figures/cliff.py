"""The loss surface of a tiny recurrent net with the paths of several descents: in space, from above, and over steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme

LIFT = 0.008
"""How far a path floats above the land, so that the land does not swallow it."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
SIGNS = ("circle", "diamond", "square", "cross", "x", "circle-open", "diamond-open")
"""Marks of the latest point, of those that there are in space, too."""
LAND = tuple(zip(np.linspace(0, 1, 5).tolist(), ("#5b9aa0", "#9cc4ba", "#dfe3cd", "#f0dcbf", "#e6bf9f"), strict=True))
"""The color of the land, from the lowest loss to the highest."""
NAMES = ("w", "b", "loss")


SAID = (
    "step %{customdata[0]:.0f}<br>w %{customdata[1]:.3g}, b %{customdata[2]:.3g}, loss %{customdata[3]:.3g}"
    "<br>gradient %{customdata[4]:.3g} long, used %{customdata[5]:.3g}<extra></extra>"
)


@dataclass(frozen=True)
class Track:
    """A descent to draw: its points so far, which of them lie within the borders, and its way over the land."""

    label: str
    color: str
    points: np.ndarray  # (visited 5): w, b, loss, length of the gradient, length of what was used of it
    inside: np.ndarray  # (visited)
    way: np.ndarray  # (points 3): w, b, loss; nan beyond the borders

    @property
    def said(self) -> dict[str, Any]:
        """What the pointer says at every visited point."""
        steps = np.arange(len(self.points))
        told = np.column_stack([steps, self.points]).astype(np.float32)
        return {"customdata": told, "hovertemplate": f"<b>{self.label}</b>, {SAID}"}


def in_space(w: np.ndarray, b: np.ndarray, loss: np.ndarray, tracks: Sequence[Track]) -> go.Figure:
    """Draw the land in three dimensions and the tracks on it."""
    land = go.Surface(
        x=w,
        y=b,
        z=loss.astype(np.float32),
        colorscale=LAND,
        showscale=False,
        lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05, "roughness": 0.9},
        hovertemplate="w %{x:.3g}, b %{y:.3g}<br>loss %{z:.3g}<extra></extra>",
        contours={axis: {"highlight": False} for axis in "xyz"},
        showlegend=False,
    )
    traces: list[Any] = [land]
    for place, track in enumerate(tracks):
        width = max(3.0, 7.0 - 1.2 * place)
        traces.append(_line(go.Scatter3d, track, place, width, z=(track.way[:, 2] + LIFT).astype(np.float32)))
        (x, y, z), sizes, said = _visited(track, 2.5, 7)
        traces.append(
            go.Scatter3d(
                x=x,
                y=y,
                z=z + LIFT,
                mode="markers",
                marker={
                    "size": sizes,
                    "color": track.color,
                    "symbol": SIGNS[place % len(SIGNS)],
                    "opacity": 1,
                    "line": {"width": 0},
                },
                **said,
                showlegend=False,
            )
        )
    axes = {f"{letter}axis": {"title": {"text": name}} for letter, name in zip("xyz", NAMES, strict=True)}
    return go.Figure(
        data=traces,
        layout={
            "template": theme.template(),
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "scene": axes
            | {
                "aspectmode": "manual",
                "aspectratio": {"x": 1.0, "y": 1.0, "z": 0.58},
                "camera": {"eye": {"x": 1.35, "y": 1.1, "z": 0.85}, "center": {"x": 0.05, "y": -0.05, "z": -0.12}},
            },
            "showlegend": False,
        },
    )


def from_above(w: np.ndarray, b: np.ndarray, loss: np.ndarray, tracks: Sequence[Track]) -> go.Figure:
    """Draw the same land as a map."""
    land = go.Heatmap(
        x=w,
        y=b,
        z=loss.astype(np.float32),
        colorscale=LAND,
        zsmooth=False,
        hovertemplate="w %{x:.3g}, b %{y:.3g}<br>loss %{z:.3g}<extra>click: start here</extra>",
        colorbar={"title": {"text": "loss"}, "thickness": 12, "outlinewidth": 0, "tickfont": {"size": 11}},
    )
    traces: list[Any] = [land]
    for place, track in enumerate(tracks):
        traces.append(_line(go.Scatter, track, place, max(1.5, 3.5 - 0.6 * place)))
        (x, y, _), sizes, said = _visited(track, 5, 12)
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                mode="markers",
                marker={
                    "size": sizes,
                    "color": track.color,
                    "symbol": SIGNS[place % len(SIGNS)],
                    "opacity": 1,
                    "line": {"color": "#ffffff", "width": 0.5},
                },
                **said,
                showlegend=False,
            )
        )
    return go.Figure(
        data=traces,
        layout={
            "template": theme.template(),
            "xaxis": {"title": {"text": "w, the recurrent weight"}, "range": [w[0], w[-1]]},
            "yaxis": {"title": {"text": "b, the bias"}, "range": [b[0], b[-1]]},
            "hovermode": "closest",
            "dragmode": False,
            "showlegend": False,
        },
    )


def over_steps(tracks: Sequence[Track], steps: int) -> go.Figure:
    """Draw the loss of every track against the step, on a logarithmic scale."""
    traces = [
        go.Scatter(
            x=np.arange(len(track.points)),
            y=np.maximum(track.points[:, 2], 1e-12),
            mode="lines+markers",
            name=track.label,
            line={"color": track.color, "width": 2, "dash": DASHES[place % len(DASHES)]},
            marker={"size": 5, "symbol": SIGNS[place % len(SIGNS)]},
            **track.said,
        )
        for place, track in enumerate(tracks)
    ]
    return go.Figure(
        data=traces,
        layout={
            "template": theme.template(),
            "xaxis": {"title": {"text": "step"}, "range": [-0.5, steps + 0.5]},
            "yaxis": {"title": {"text": "loss"}, "type": "log", "exponentformat": "power", "dtick": 1},
            "hovermode": "closest",
            "showlegend": True,
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
        },
    )


def _line(kind: Any, track: Track, place: int, width: float, **more: Any) -> Any:
    return kind(
        x=track.way[:, 0].astype(np.float32),
        y=track.way[:, 1].astype(np.float32),
        mode="lines",
        name=track.label,
        line={"color": track.color, "width": width, "dash": DASHES[place % len(DASHES)]},
        connectgaps=False,
        hoverinfo="skip",
        **more,
    )


def _visited(track: Track, small: float, large: float) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The visited points within the borders, their sizes (the latest of all is large), and what the pointer says."""
    (inside,) = np.nonzero(track.inside)
    sizes = np.where(inside == len(track.points) - 1, large, small)
    said = track.said | {"customdata": track.said["customdata"][inside]}
    return track.points[inside, :3].T, sizes, said
