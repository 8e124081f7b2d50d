"""How much one step of a race computes and keeps in memory, by arithmetic alone: nothing is run."""

from dataclasses import dataclass

from normcore.lab.nets import LAYOUT, MODELS, Transformer
from normcore.lab.race import Race
from normcore.lab.teams import Team

KEPT, LIVE = 20, 8
"""Numbers a unit that are in memory at once: for the way back in training, and on the held-out examples."""
BYTES = 4


@dataclass(frozen=True)
class Load:
    """The heaviest step, with a look at the held-out examples: its multiplications on the way forward, and bytes."""

    multiplications: float
    memory: float


def load(race: Race, seeds: int | None = None) -> Load:
    """What the heaviest step takes; `seeds` says how many to reckon with, as many as the race has by default."""
    count, multiplications, memory = seeds or len(race.seeds), 0.0, 0.0
    for team in race.teams:
        once, units = _example(team, team.parameters_each)
        held = len(team.data.held_x)
        # The way back costs twice the way forward, and held-out examples go forward only.
        multiplications += once * count * (team.setup.batch_size + held / 3)
        together = count if team.stacked else 1
        kept = max(KEPT * units * count * team.setup.batch_size, LIVE * units / team.setup.depth * together * held)
        memory = max(memory, kept * BYTES)
    return Load(multiplications, memory)


def _example(team: Team, parameters: float) -> tuple[float, float]:
    """Multiplications and units of one example."""
    setup, shape = team.setup, tuple(team.data.x.shape[1:])
    net = MODELS[setup.model].net
    if net is Transformer:
        steps = shape[0]
        attention = setup.depth * steps * steps
        return parameters * steps + 2 * setup.width * attention, setup.depth * setup.width * steps + attention
    if LAYOUT.get(net) == "image":  # the first convolution sees all places, the others a quarter
        area = shape[1] * shape[2]
        first = 9 * shape[0] * setup.width * area
        return first + parameters * area / 4, setup.width * area * (1 + setup.depth / 2)
    places = shape[0] if LAYOUT.get(net) is None else 1
    return parameters * places, setup.depth * setup.width * places
