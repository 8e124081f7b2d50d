"""Experiments as plain records: no user interface, every one with randomness of its own."""

from normcore.lab.race import Contestant, Race

__all__ = ["Contestant", "Race"]
