"""After the oracles have spoken, what they found is written down."""

import agreement


def pytest_sessionfinish() -> None:
    """Write the record, if one was asked for."""
    agreement.write()
