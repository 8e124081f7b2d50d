"""Regions of a large tensor as rows of memory, for the compiled loops: where they lie, and their gain beside them."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from normcore.core.team import share, threads_for

if TYPE_CHECKING:
    from normcore.core.scaling import Recipe

LARGE = 2**18
"""Elements from which a tensor is worth compiled loops: fewer stay in the cache between PyTorch's own steps."""
SHORT = 16
"""Values in a row that are too few for a loop of their own."""
TILES = 64, 4096
"""The fewest and the most columns that are worked on together, so that their sums and a part of their region fit the
cache of a core."""

Shape = tuple[int, ...]
Loop = Callable[..., None]


def unwatched() -> bool:
    """Whether nobody is recording PyTorch's operations, who would miss what loops do."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode())


def readable(t: Tensor, dtype: torch.dtype) -> bool:
    """Whether loops can read the numbers of a tensor, which are of a precision."""
    return (
        t.is_cpu
        and t.dtype is dtype
        and dtype in (torch.float32, torch.float64)
        and type(t) in (Tensor, nn.Parameter)
        and not t.is_neg()
        and not t._is_zerotensor()
    )


def compilable(x: Tensor, *others: Tensor) -> bool:
    """Whether compiled loops can take a tensor, with those beside it, and whether that is worth it."""
    return x.numel() > LARGE and unwatched() and all(readable(t, x.dtype) for t in (x, *others))


class Rows(NamedTuple):
    """How a tensor, its dimensions in the `order` of its memory, is rows of a length that belong to regions.

    That order is `straight` where it is that of the dimensions. A row lies `within` a region, or has a region a column.
    `gained` is the shape of gain and shift, `gains` how many rows and columns they have. `index` and `which` are what
    the loops want (numpy).
    """

    order: Shape
    inverse: Shape
    straight: bool
    length: int
    within: bool
    gained: Shape
    gains: tuple[int, int]
    index: Any
    which: Any

    def of(self, x: Tensor, columns: int = 0) -> Any:
        """A tensor as rows, of another length where it says so; one that lies differently in memory is copied."""
        x = x.detach() if x.requires_grad else x
        x = x if self.straight else x.permute(self.order)
        return x.contiguous().view(-1, columns or self.length).numpy()

    def flat(self, statistic: Tensor) -> Any:
        """A statistic as the loops want it."""
        return self.of(statistic, 1)[:, 0] if self.within else self.of(statistic)

    def gain(self, weight: Tensor | None, x: Tensor) -> Any:
        """The gain as the loops want it."""
        return _constant(1.0, self.gains, x.dtype) if weight is None else self._laid(weight)

    def shift(self, bias: Tensor | None, x: Tensor) -> Any:
        """The shift as the loops want it."""
        return _constant(0.0, (self.gains[0], 1), x.dtype) if bias is None else self._laid(bias)

    def _laid(self, parameter: Tensor) -> Any:
        return self.of(parameter.expand(self.gained), self.gains[1])

    def ungain(self, gain: Tensor) -> Tensor:
        """What lies as `gain` gives it, in the shape that broadcasts against the tensor."""
        return gain.view([self.gained[d] for d in self.order]).permute(self.inverse)

    def room(self, x: Tensor, dims: Shape = ()) -> Tensor:
        """A new tensor whose memory has the same order, without the dimensions that regions span."""
        room = x.new_empty([1 if d in dims else x.shape[d] for d in self.order])
        return room if self.straight else room.permute(self.inverse)

    def run(self, loops: tuple[Loop, Loop], threads: int, *arrays: Any) -> None:
        """Calls the loop over rows or the one over columns on all regions; a list of arrays has one for each thread."""
        over_rows, over_columns = loops
        units, tile = len(self.index), min(max(-(-len(self.index) * self.length // threads), TILES[0]), TILES[1])

        def over(start: int, stop: int, thread: int) -> None:
            given = [a[thread] if isinstance(a, list) else a for a in arrays]
            if self.within:
                over_rows(start, stop, *given)
            else:
                over_columns(start, stop, *given, tile)

        share(over, units if self.within else units * -(-self.length // tile), threads)


@lru_cache(maxsize=16)
def _constant(value: float, shape: Shape, dtype: torch.dtype) -> Any:
    """An array that nobody writes to."""
    return torch.full(shape, value, dtype=dtype, device="cpu").numpy()


@lru_cache(maxsize=16)
def rows_of(shape: Shape, strides: Shape, dims: Shape, gained: Shape) -> Rows:
    """The rows of a tensor whose regions span `dims`, with gains of a shape that broadcasts to it."""
    order = sorted(range(len(shape)), key=strides.__getitem__, reverse=True)
    kinds = [(d in dims, gained[d] > 1) for d in order]
    sizes = [shape[d] for d in order]
    last = max((i for i, size in enumerate(sizes) if size > 1), default=0)
    first = next((i + 1 for i in range(last, -1, -1) if sizes[i] > 1 and kinds[i] != kinds[last]), 0)
    kept_first = sorted(range(first), key=lambda i: kinds[i][0])
    count = math.prod(size for size, (spanned, _) in zip(sizes[:first], kinds, strict=False) if not spanned)

    def numbered(some: list[int]) -> Any:
        numbers = torch.arange(math.prod(some), dtype=torch.int32, device="cpu").view(some).expand(sizes[:first])
        return numbers.permute(kept_first).reshape(count, -1).contiguous().numpy()

    along = [gained[d] for d in order]
    gains = math.prod(along[:first]), math.prod(along[first:])
    inverse = tuple(sorted(range(len(shape)), key=order.__getitem__))
    index, which = numbered(sizes[:first]), numbered(along[:first])
    straight, length = order == sorted(order), math.prod(sizes[first:])
    return Rows(tuple(order), inverse, straight, length, kinds[last][0], gained, gains, index, which)


def _seen(recipe: "Recipe", x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Rows, int]:
    """The rows, and how many threads work on them."""
    given = [p.shape for p in (weight, bias) if p is not None]
    gained = tuple(map(max, zip(*given, (1,) * x.ndim, strict=True)))
    return rows_of(x.shape, x.stride(), recipe.dims, gained), threads_for(x.numel())


def forward(recipe: "Recipe", x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...] | None:
    """The result and the statistics by compiled loops; None where rows are too short for them."""
    rows, threads = _seen(recipe, x, weight, bias)
    if rows.length < SHORT:
        return None
    from normcore.core import compiled  # noqa: PLC0415 - a compiler takes a while to load

    y, second, rest = rows.room(x), rows.room(x, recipe.dims), rows.room(x, recipe.dims)
    given = rows.of(x), rows.of(y), rows.index, rows.which, rows.gain(weight, x), rows.shift(bias, x)
    loops = compiled.rows_forward, compiled.columns_forward
    rows.run(loops, threads, *given, rows.flat(second), rows.flat(rest), recipe.rule(x.dtype))
    return (y, second, rest) if recipe.centered else (y, second)


def backward(
    recipe: "Recipe", g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, second: Tensor, *rest: Tensor
) -> tuple[Tensor | None, ...] | None:
    """The gradients of x, weight and bias by compiled loops; None where rows are too short for them."""
    rows, threads = _seen(recipe, x, weight, bias)
    if rows.length < SHORT:
        return None
    from normcore.core import compiled  # noqa: PLC0415 - a compiler takes a while to load

    by_x, by_gain, by_shift = rows.room(x), *x.new_zeros(2, threads, *rows.gains, dtype=torch.float64)
    given = rows.of(g), rows.of(x), rows.of(by_x), rows.index, rows.which, rows.gain(weight, x)
    found = list(by_gain.numpy()), list(by_shift.numpy())
    statistics = rows.flat(second), rows.flat(rest[0] if rest else torch.zeros_like(second))
    loops = compiled.rows_backward, compiled.columns_backward
    rows.run(loops, threads, *given, *found, *statistics, recipe.rule(x.dtype))
    by_weight, by_bias = (
        None if p is None else rows.ungain(total.sum(0)).sum_to_size(p.shape).to(p)
        for p, total in ((weight, by_gain), (bias, by_shift))
    )
    return by_x, by_weight, by_bias
