"""Units of a cluster handed out to models, exactly: dynamic programming over (model, units of every GPU type).

The value of a division is the sum of what its models are worth with what they get. Every table of values is monotone
or not, as it comes: nothing is assumed of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from costmodel.plan.columns import Floats, Ints

Units = tuple[int, ...]
"""Of each GPU type."""


def best_divisions(values: Sequence[Floats]) -> tuple[Floats, list[Ints]]:
    """The most value of the first models for every number of units, and what the last of them gets for it.

    Args:
        values: of each model, by the units that it gets: arrays of one shape, an axis for each GPU type, from 0 on.

    Returns:
        The value of all models by the units that there are, same shape; and for each model the flat index of what it
        gets where it and the models before it have so many.
    """
    shape = values[0].shape
    most = np.zeros(shape)
    choices: list[Ints] = []
    for value in values:
        best = np.full(shape, -np.inf)
        chosen = np.zeros(shape, dtype=np.int64)
        for flat, units in enumerate(product(*(range(n) for n in shape))):
            if value[units] == -np.inf:
                continue
            here = tuple(slice(u, None) for u in units)
            rest = tuple(slice(0, n - u) for n, u in zip(shape, units, strict=True))
            reached = most[rest] + value[units]
            better = reached > best[here]
            best[here] = np.where(better, reached, best[here])
            chosen[here] = np.where(better, flat, chosen[here])
        most = best
        choices.append(chosen)
    return most, choices


def division_of(choices: Sequence[Ints], units: Units) -> list[Units]:
    """What each model gets of so many units, by the choices of `best_divisions`."""
    shape = choices[0].shape
    out: list[Units] = []
    left = units
    for chosen in reversed(choices):
        got = tuple(int(u) for u in np.unravel_index(int(chosen[left]), shape))
        out.append(got)
        left = tuple(have - taken for have, taken in zip(left, got, strict=True))
    return out[::-1]
