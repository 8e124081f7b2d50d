"""What normalization costs a net: numbers to learn, and statistics to compute."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from normcore.lab.nets import Plan, build
from normcore.lab.tasks import Data
from normcore.trial import places, run_once
from normcore.watch import method_of, settings_met, understood


@dataclass(frozen=True)
class Cost:
    """`parameters`: how many more a net learns than without its norms; `statistics`: how many a batch takes."""

    parameters: int
    statistics: int


def cost(data: Data, plan: Plan, batch_size: int) -> Cost:
    """The costs of a plan's norms, counted in a net of it on its way forward with one batch in training."""
    net, plain = build(data, plan, 0), build(data, replace(plan, norm=None, settings={}), 0)
    learned, without = (sum(p.numel() for p in each.parameters()) for each in (net, plain))
    return Cost(learned - without, _statistics(net, data.x[:batch_size]))


def _statistics(net: nn.Module, x: Tensor) -> int:
    """How many statistics all norms of a net compute, in all their calls."""
    found = 0

    def met(module: nn.Module, given: Tensor) -> None:
        nonlocal found
        method, (layout, shape) = method_of(module), understood(module, tuple(given.shape))
        if method is not None and layout is not None:
            found += sum(bound.count for bound in method.bound(shape, layout, **settings_met(module)))

    run_once(net, x, dict.fromkeys(places(net, lambda module: method_of(module) is not None, "race"), met))
    return found
