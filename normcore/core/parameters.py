"""Hyper-parameters that several methods have, each with its domain."""

from typing import Annotated

from normcore.core.domains import Divides, OneOf, Range

Epsilon = Annotated[float, Range(0.0, 1.0, usual=(1e-12, 1e-1), logarithmic=True)]
Momentum = Annotated[float | None, Range(0.0, 1.0, none="cumulative average")]
Groups = Annotated[int, Divides("c", "group", "channel")]
GhostBatchSize = Annotated[int, Divides("n", "ghost batch", "sample", counts_members=True)]
Classes = Annotated[int, Range(1, usual=(1, 10), integer=True)]
Seed = Annotated[int, Range(0, 2**31 - 1, usual=(0, 9), integer=True)]
EpsilonPlace = Annotated[str, OneOf(("inside", "outside"))]
