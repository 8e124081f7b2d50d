"""What happens when something goes wrong: curves over what was turned up, and single points."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
COLORS = (4, 0, 1, 2, 6)


def curves(
    x: np.ndarray,
    series: Mapping[str, np.ndarray],
    titles: tuple[str, str],
    log: str = "",
    points: Sequence[str] = (),
) -> go.Figure:
    """Draw one curve a name over x, told apart by color and dash; a name in `points` becomes single marks."""
    figure = go.Figure()
    for place, (name, values) in enumerate(series.items()):
        color = theme.REGION_COLORS[COLORS[place % len(COLORS)]]
        marks = name in points
        figure.add_scatter(
            x=x,
            y=values,
            name=name,
            mode="markers" if marks else "lines",
            line={"color": color, "width": 2.4, "dash": DASHES[place % len(DASHES)]},
            marker={"color": color, "size": 10, "symbol": "x"},
            hovertemplate=f"{name}<br>%{{y:.3~g}} at %{{x:,.3~g}}<extra></extra>",
            cliponaxis=False,
        )
    for axis, title, letter in zip((figure.update_xaxes, figure.update_yaxes), titles, "xy", strict=True):
        axis(title_text=title)
        if letter in log:
            axis(type="log", exponentformat="power", dtick=_step(x if letter == "x" else np.array([*series.values()])))
    figure.update_layout(
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 56, "r": 16, "t": 24, "b": 48},
    )
    return figure


def _step(values: np.ndarray) -> int:
    """How many powers of ten from tick to tick, so that there are about six."""
    known = values[np.isfinite(values) & (values > 0)]
    powers = float(np.log10(known.max() / known.min())) if known.size else 1.0
    return max(1, round(powers / 6))
