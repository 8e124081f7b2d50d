"""What comes with the input: which elements count, and gains and biases that belong to single samples."""

import torch
from torch import Tensor
from torch.nn import functional

from normcore.core.errors import NormcoreError
from normcore.core.region import Bound
from normcore.core.statistics import Statistics, affine, cast, widen


def standardize_counted(
    x: Tensor, region: Bound, mask: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Statistics, Tensor]:
    """`standardize` with the statistics of those elements alone for which the mask is True; all are transformed.

    The mask is shaped like x, or like x without its channels. A region in which nothing counts has no statistics: its
    elements become the bias.

    Returns:
        The result, `mean` and `var` as used, and how many elements counted, in shapes that broadcast against x.
    """
    wide = widen(x)
    mask = (mask if mask.ndim == x.ndim else mask.unsqueeze(region.channel_axis)).bool()
    count = region.spread(region.mean(cast(mask.expand(x.shape), wide.dtype))) * region.size

    def mean_of(values: Tensor) -> Tensor:
        return region.spread(region.mean(torch.where(mask, values, 0.0))) * (region.size / count.clamp_min(1.0))

    first = mean_of(wide)
    centered = wide - first
    rest = mean_of(centered)
    centered = centered - rest
    var = mean_of(torch.where(mask, centered, 0.0).square())
    scale = torch.where(count > 0, (var + eps).rsqrt(), 0.0)
    y = affine(centered, region, weight, bias, scale)
    return cast(y, x.dtype), {"mean": (first + rest).detach(), "var": var.detach()}, count


def or_number(given: Tensor | None, number: float, like: Tensor) -> Tensor:
    """A tensor in the precision of another, or the number that stands for it where it is left out."""
    return like.new_full((), number) if given is None else cast(given, like.dtype)


def along_samples(parameter: Tensor, region: Bound) -> Tensor:
    """A tensor (n c), one value for each sample and channel (or one for all), that broadcasts against the input."""
    shape = [1] * len(region.shape)
    shape[0], shape[region.channel_axis] = parameter.shape or (1, 1)
    return parameter.reshape(shape)


def chosen_rows(key: str, table: Tensor, labels: Tensor | None, region: Bound) -> Tensor:
    """The row of a table (classes c) that each sample's label names, or the first row for all without labels.

    Raises:
        NormcoreError: A label names no row of the table.
    """
    if labels is None:
        return along_samples(table[:1].expand(region.shape[0], -1), region)
    problem = f"{key}: labels must be whole numbers from 0 to {len(table) - 1}, the rows of the table"
    if labels.is_floating_point():
        raise NormcoreError(f"{problem}, not {labels.dtype}")
    try:
        return along_samples(functional.embedding(labels.long(), table), region)
    except IndexError:
        raise NormcoreError(f"{problem}, not {int(labels.min())} to {int(labels.max())}") from None
