"""Faults, injected and counted: `python -m tests.torture`."""
