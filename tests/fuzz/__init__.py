"""Hostile input to every reader: `python -m tests.fuzz` with atheris, and a short form with hypothesis."""
