"""Experiments as plain records: no user interface, every one with randomness of its own."""

from normcore.lab.race import Contestant, Race
from normcore.lab.sweeps import sweep

__all__ = ["Contestant", "Race", "sweep"]
