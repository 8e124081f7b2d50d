"""Experiments as plain records: no user interface, every one with randomness of its own."""
