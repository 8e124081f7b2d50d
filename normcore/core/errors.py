"""The one exception that bad input raises."""


class NormcoreError(ValueError):
    """Bad input, in one sentence: what it is, which value it has, and what would work."""
