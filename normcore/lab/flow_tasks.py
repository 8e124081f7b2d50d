"""What the nets of the Gradient flow page learn, in float64: handwritten digits, and the adding problem."""

from functools import cache, lru_cache

import torch

from normcore.lab import tasks

EXAMPLES = 1024
"""How many sequences of the adding problem there are."""


@cache
def digits() -> tasks.Data:
    """The handwritten digits, a row of 64 pixels each, with mean 0 and deviation 1 over all of them."""
    data = tasks.data("digits")
    x = data.x.double().flatten(1)
    x = (x - x.mean()) / x.std(correction=0)
    return tasks.Data("features", x, data.y, x[:0], data.y[:0], 10)


@lru_cache(maxsize=8)
def adding(length: int, seed: int = 0) -> tasks.Data:
    """Hochreiter and Schmidhuber 1997: the sum of the two marked numbers of a sequence of this length."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(EXAMPLES, length, generator=generator, dtype=torch.float64)
    places = torch.rand(EXAMPLES, length, generator=generator).topk(min(2, length), dim=1).indices
    marks = torch.zeros(EXAMPLES, length, dtype=torch.float64).scatter_(1, places, 1.0)
    x, y = torch.stack([values, marks], 2), (values * marks).sum(1)
    return tasks.Data("sequence", x, y, x[:0], y[:0], 0)
