"""Regions of a large tensor as rows of memory, for the compiled loops: where they lie, and their gain beside them."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _DisableFuncTorch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from normcore.core.team import parts_for, share, team

if TYPE_CHECKING:
    from normcore.core.scaling import Recipe

LARGE = 2**18
"""Elements from which a tensor is worth compiled loops: fewer stay in the cache between PyTorch's own steps."""
SHORT = 16
"""Values in a row that are too few for a loop of their own."""
TILES = 64, 4096
"""The fewest and the most columns that are worked on together, so that their sums and a part of their region fit the
cache of a core."""

BLOCK = 512
"""Columns side by side that are enough for a loop of their own."""
WIDE = 1024
"""Columns that several short rows are joined to."""
TALL = 512
"""Rows that are worth sharing out where there is one line of regions, twice as many where there are two, and so on."""

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

    That order is `straight` where it is that of the dimensions; `sizes` are theirs in it, and `kept` those of one
    statistic. A row lies `within` a region, or so many of its columns side by side, a `block`, are one; there are so
    many `regions` in a row, after which the first one comes again. `gained` is the shape of gain and shift, `gains` how
    many rows and columns they have: one a row, one a region, or one a column of all regions, which come again too.
    `index` and `which` are what the loops want (numpy).
    """

    order: Shape
    inverse: Shape
    straight: bool
    sizes: Shape
    kept: Shape
    length: int
    within: bool
    block: int
    regions: int
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
        return self.of(statistic, 1)[:, 0] if self.within else self.of(statistic, self.regions)

    def gain(self, weight: Tensor | None, x: Tensor) -> Any:
        """The gain as the loops want it."""
        shape = self.gains[0], self.gains[1] * self.again
        return _constant(1.0, shape, x.dtype) if weight is None else self._laid(weight)

    def shift(self, bias: Tensor | None, x: Tensor) -> Any:
        """The shift as the loops want it."""
        return _constant(0.0, (self.gains[0], 1), x.dtype) if bias is None else self._laid(bias)

    @property
    def times(self) -> int:
        """How often the first region comes within a row."""
        return self.length // (self.regions * self.block)

    @property
    def again(self) -> int:
        """How often the first column of gains comes within a row."""
        return self.times if self.gains[1] == self.regions * self.block else 1

    def _laid(self, parameter: Tensor) -> Any:
        laid = self.of(parameter.expand(self.gained), self.gains[1])
        return laid if self.again == 1 else torch.from_numpy(laid).repeat(1, self.again).numpy()

    def gradients(self, x: Tensor, parts: int) -> Any:
        """Room for the gradients of gain and shift, found in each part or line (numpy)."""
        rows, columns = self.gains
        slots = min(parts, len(self.index)) if columns > 1 and not self.within else parts
        return x.new_zeros(2, slots, rows, columns * self.again, dtype=torch.float64).numpy()

    def ungain(self, found: Any) -> Tensor:
        """A gradient that `gradients` has, in the shape that broadcasts against the tensor."""
        total = torch.from_numpy(found).sum(0).view(self.gains[0], -1, self.gains[1]).sum(1)
        return total.view([self.gained[d] for d in self.order]).permute(self.inverse)

    def room(self, x: Tensor) -> Tensor:
        """A new tensor whose memory has the same order."""
        room = x.new_empty(self.sizes)
        return room if self.straight else room.permute(self.inverse)

    def statistics(self, x: Tensor, count: int) -> tuple[Sequence[Tensor], Any]:
        """Room for several statistics: in shapes that broadcast, and as the loops want it."""
        room = x.new_empty((count, *self.kept))
        array = room.view((count, -1) if self.within else (count, -1, self.regions)).numpy()
        found = room.unbind()
        return found if self.straight else [one.permute(self.inverse) for one in found], array

    def run(self, loops: tuple[Loop, Loop, Loop], parts: int, *arrays: Any) -> None:
        """Has the loop over rows, the one over columns or the one over tall columns go through all regions."""
        over_rows, over_columns, over_tall = loops
        lines, members = self.index.shape
        if self.within:
            share(over_rows, lines, parts, *arrays)
        elif lines < parts and members >= TALL * lines and (self.gains[1] > 1 or self.gains[0] == 1):
            over_tall(team(-(-members // 8), parts), *arrays, self.block)
        else:
            # Rows are read whole where that leaves nearly as many pieces of work as there are parts.
            tile = min(max(-(-self.length // max(1, parts // lines)), TILES[0]), TILES[1])
            tile = self.length if self.times > 1 else -(-tile // self.block) * self.block
            share(over_columns, lines * -(-self.length // tile), parts, *arrays, (self.block, tile))


@lru_cache(maxsize=16)
def _constant(value: float, shape: Shape, dtype: torch.dtype) -> Any:
    """An array that nobody writes to."""
    return torch.full(shape, value, dtype=dtype, device="cpu").numpy()


@lru_cache(maxsize=16)
def rows_of(shape: Shape, strides: Shape, dims: Shape, gained: Shape) -> Rows | None:
    """The rows of a tensor whose regions span `dims`, with gains of a shape that broadcasts to it.

    None where rows would be too short, or gains differ along rows and among the rows of a region.
    """
    order = sorted(range(len(shape)), key=strides.__getitem__, reverse=True)
    sizes, spanned = [shape[d] for d in order], [d in dims for d in order]
    kinds = [(d in dims, gained[d] > 1) for d in order]
    last = max((i for i, size in enumerate(sizes) if size > 1), default=0)
    # Where a row begins: it is of one kind, or of blocks of columns if one would be short and have others above.
    first = next((i + 1 for i in range(last, -1, -1) if sizes[i] > 1 and kinds[i] != kinds[last]), 0)
    block = math.prod(sizes[first:]) if spanned[last] else 1
    above = next((i + 1 for i in range(first - 1, -1, -1) if sizes[i] > 1 and spanned[i]), 0)
    within = spanned[last] and (block >= BLOCK or not above)
    first = above if spanned[last] and not within else first
    width = math.prod(sizes[first:])
    # Short rows are joined to longer ones, as far as those above are of the same regions and gains.
    same = next((i + 1 for i in range(first - 1, -1, -1) if sizes[i] > 1 and kinds[i] != (True, False)), 0)
    times = 1 if within else math.gcd(math.prod(sizes[same:first]), 1 << max(0, (WIDE // width).bit_length() - 1))
    kept_first = sorted(range(first), key=lambda i: spanned[i])
    lines = math.prod(size for size, one in zip(sizes[:first], spanned, strict=False) if not one)

    def numbered(some: list[int]) -> Any:
        with _DisableFuncTorch():  # which would look through these numbers too
            numbers = torch.arange(math.prod(some), dtype=torch.int32, device="cpu").view(some).expand(sizes[:first])
            return numbers.permute(kept_first).reshape(lines, -1)[:, ::times].contiguous().numpy()

    along = [gained[d] for d in order]
    fine = any(spanned[i] and along[i] > 1 for i in range(first, len(order)))
    if math.prod(along[first:]) > 1:
        along[first:] = [
            size if fine or not one else 1 for size, one in zip(sizes[first:], spanned[first:], strict=True)
        ]
    gains = math.prod(along[:first]), math.prod(along[first:])
    index, which = numbered(sizes[:first]) // times, numbered(along[:first])
    if times * width < SHORT or (not within and gains[1] > 1 and (which != which[:, :1]).any()):
        return None
    inverse = tuple(sorted(range(len(shape)), key=order.__getitem__))
    kept = tuple(1 if one else size for size, one in zip(sizes, spanned, strict=True))
    layout = tuple(order), inverse, order == sorted(order), tuple(sizes), kept, times * width, within
    return Rows(*layout, block, width // block, tuple(along[i] for i in inverse), gains, index, which)


def _seen(recipe: "Recipe", x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Rows | None:
    given = [p.shape for p in (weight, bias) if p is not None]
    gained = tuple(map(max, zip(*given, (1,) * x.ndim, strict=True)))
    return rows_of(x.shape, x.stride(), recipe.dims, gained)


def have(recipe: "Recipe", x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether a tensor has rows for the loops that its gain and shift go along with."""
    return _seen(recipe, x, weight, bias) is not None


def forward(recipe: "Recipe", x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...] | None:
    """What the formula gives, by compiled loops; None where it has no rows for them."""
    rows = _seen(recipe, x, weight, bias)
    if rows is None:
        return None
    from normcore.core import compiled, compiled_columns  # noqa: PLC0415 - a compiler takes a while to load

    y, (statistics, found) = rows.room(x), rows.statistics(x, 3)
    given = rows.of(x), rows.of(y), rows.index, rows.which, rows.gain(weight, x), rows.shift(bias, x)
    loops = compiled.rows_forward, compiled_columns.columns_forward, compiled_columns.tall_forward
    rows.run(loops, parts_for(x.numel()), *given, *found, recipe.rule(x.dtype))
    return (y, *statistics) if recipe.centered else (y, statistics[0])


def backward(
    recipe: "Recipe", g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, second: Tensor, *rest: Tensor
) -> tuple[Tensor | None, ...] | None:
    """The gradients of x, weight and bias by compiled loops; None where it has no rows for them."""
    rows = _seen(recipe, x, weight, bias)
    if rows is None:
        return None
    parts = max(1, min(parts_for(x.numel()), x.numel() // (4 * math.prod(rows.gains))))  # each has room for gains
    from normcore.core import compiled, compiled_columns  # noqa: PLC0415 - a compiler takes a while to load

    by_x, found = rows.room(x), rows.gradients(x, parts)
    given = rows.of(g), rows.of(x), rows.of(by_x), rows.index, rows.which, rows.gain(weight, x)
    statistics = rows.flat(second), rows.flat(rest[0] if rest else torch.zeros_like(second))
    loops = compiled.rows_backward, compiled_columns.columns_backward, compiled_columns.tall_backward
    learns = weight is not None or bias is not None
    rows.run(loops, parts, *given, *found, *statistics, recipe.rule(x.dtype), learns)
    by_weight, by_bias = (
        None if p is None else rows.ungain(gradient).sum_to_size(p.shape).to(p)
        for p, gradient in zip((weight, bias), found, strict=True)
    )
    return by_x, by_weight, by_bias
