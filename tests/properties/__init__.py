"""Statements that are true of every study: held against random ones, `python -m tests.properties`."""
