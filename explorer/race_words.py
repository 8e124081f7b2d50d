"""In which ways a race is fair, in words: what its contestants share, and where one on weights starts elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from normcore import METHODS
from normcore.lab.results import Results

SAME = 0.001
"""A difference of first weights below this share of their length counts as none."""
UNLIKE = ("model", "depth", "width")
"""Where nets differ in one of these, they cannot have the same weights."""

SPOKEN = {"init": "first weights", "placement": "place of the norms"}
"""What the engine calls otherwise than people do."""


def spoken(knob: str) -> str:
    """What contestants may differ in, in words."""
    return SPOKEN.get(knob, knob.replace("_", " "))


def fair(contestants: Sequence[Mapping[str, Any]]) -> str:
    """What all contestants start from and see."""
    varied = {name for one in contestants for name in one.get("overrides", {})}
    unlike = " and ".join(name for name in UNLIKE if name in varied)
    if unlike:
        weights = f"start from weights of their own, for their nets differ in {unlike},"
    elif "init" in varied:
        weights = "start from weights drawn in different ways with the same seeds"
    else:
        weights = "start from the same weights"
    if "batch_size" in varied:
        return f"{weights} and see the same examples in the same order, in batches of different sizes"
    return f"{weights} and see the same batches in the same order"


def differ(contestants: Sequence[Mapping[str, Any]]) -> str:
    """In what contestants differ."""
    norms = {(one["norm"], str(one["settings"])) for one in contestants}
    varied = dict.fromkeys(name for one in contestants for name in one["overrides"] if name != "clip_settings")
    words = ["the norm"] * (len(norms) > 1) + [f"the {spoken(name)}" for name in varied]
    return " and ".join(words) or "nothing"


def starts(results: Results) -> str:
    """How nets with a method on weights are brought to where the others start, and which are not all the way there."""
    sides = zip(results.race["contestants"], results.labels, results.apart, strict=True)
    found = [(label, share) for one, label, share in sides if one["norm"] and METHODS[one["norm"]].family == "weight"]
    if not found:
        return ""
    far = [f"{label} starts {share:.2g} of the weights' length away" for label, share in found if share > SAME]
    still = f"; for seed {results.seeds[0]}, {' and '.join(far)}" if far else ""
    return (
        "Where a method is on weights, a fixed scale and shift for every unit bring the first effective weights as "
        f"close to those of the other nets as they can{still}."
    )
