"""Ways in which normalization goes wrong, each a question and a small experiment that answers it."""

from collections.abc import Mapping

from normcore.lab.failures import data, digits, regions, running
from normcore.lab.failures.planted import audited, planted
from normcore.lab.failures.record import Failure, Reveal

FAILURES: Mapping[str, Failure] = {
    failure.key: failure for file in (regions, digits, data, running) for failure in file.FAILURES
}
"""All of them by their keys."""

__all__ = ["FAILURES", "Failure", "Reveal", "audited", "planted"]
