"""The version of what a plan is predicted to cost, and of how its knobs are chosen."""

MODEL_VERSION = 24
"""Raise it by one in every change after which some study gets another answer than before from the same values and the
same calibration files: formulas, kernel laws, engine rules, limits, the choice of knobs, the ranking. Stored trials say
which version scored them, and those of an older one are not believed. What leaves answers as they are (names, comments,
speed, output) leaves it as it is. `python -m tests.golden` writes no changed figures before it is raised."""
