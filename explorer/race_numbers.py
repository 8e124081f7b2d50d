"""A race as numbers: its table, the curves exactly as drawn, every loss, and what makes it again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from explorer.runner import State
from explorer.table import as_csv, download, table
from normcore.lab import curves as drawn
from normcore.lab.results import Results


@dataclass(frozen=True)
class Drawing:
    """What is drawn, and how curves are."""

    view: str
    across: str
    band: str
    smoothing: float
    log: str
    singles: bool


def numbers(
    results: Results | None,
    state: State,
    kept: Sequence[tuple[str, Results]],
    baseline: int,
    how: Drawing,
    points: int,
) -> None:
    """The table of who stands where, the curves as drawn, and all that was measured; each to take along."""
    if results is None or state.going:
        st.caption("Pause the race, or let it finish, to see and take its numbers.")
        return
    rows = results.summary(baseline)
    names = {
        "label": "contestant",
        "final": "final loss",
        "interval": "± 95 %",
        "held_loss": "held-out loss",
        "held_accuracy": "held-out accuracy",
        "difference": f"less {results.labels[baseline]}",
        "difference_interval": "± of the difference",
        "wins": "seeds lower",
        "losses": "seeds higher",
        "pairs": "pairs",
        "p": "p (Holm)",
        "early": "mean loss of the first tenth",
        "fluctuation": "late fluctuation",
        "steps_to_target": "steps to the baseline's final loss",
        "diverged": "seeds diverged",
        "seeds": "seeds counted",
        "seconds_per_step": "seconds a step",
        "parameters": "parameters",
        "norm_parameters": "of them the norm's",
        "statistics": "statistics of a batch",
    }
    if not results.classes:
        del names["held_accuracy"]
    table({name: [getattr(row, field) for row in rows] for field, name in names.items()}, key="summary", file="race")
    found = drawn.losses(results, how.across, how.band, how.smoothing, points)
    st.caption("The curves, exactly as drawn:")
    table(drawn.columns(found, "training loss", how.across), key="points", file="race-curves", height=240)
    with st.container(horizontal=True):
        download("Every loss as CSV", lambda: as_csv(results.columns()), "race-every-loss.csv", "raw")
        download("What makes this race again, as JSON", lambda: results.as_json(baseline), "race.json", "manifest")
    if kept:
        st.caption("Where this race and the kept ones differ:")
        table(_differing([("this race", results), *kept]), key="kept", file="race-settings")


def _differing(races: Sequence[tuple[str, Results]]) -> dict[str, list[str]]:
    """In which settings races differ, a column each."""
    told: list[dict[str, Any]] = [{**one.race, "contestants": ", ".join(one.labels)} for _, one in races]
    names = [name for name in told[0] if len({json.dumps(one[name]) for one in told}) > 1]
    columns = {race: [str(one[name]) for name in names] for (race, _), one in zip(races, told, strict=True)}
    return {"setting": [name.replace("_", " ") for name in names], **columns}
