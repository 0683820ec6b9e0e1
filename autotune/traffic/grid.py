"""Joint lengths of requests on a logarithmic grid: small enough to keep for years, fine enough to tell drift.

Cell `i` of an axis holds lengths from `2 ** (i / 3)` up to, not including, `2 ** ((i + 1) / 3)` tokens: steps of 26 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints

CELLS_PER_OCTAVE = 3
MAX_CELL = 27 * CELLS_PER_OCTAVE
"""Of an axis: 2 ** 27 tokens, beyond the longest length that is believed."""


def cell_of(tokens: Floats) -> Ints:
    """Cell of each length, shape of `tokens`; lengths below one token lie in the first."""
    cells = np.floor(np.log2(np.maximum(tokens, 1.0)) * CELLS_PER_OCTAVE + 1e-9).astype(np.int64)
    return np.minimum(cells, MAX_CELL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Requests by (prompt cell, output cell); only cells that hold some."""

    prompt_cell: tuple[int, ...]
    output_cell: tuple[int, ...]
    count: tuple[int, ...]

    @classmethod
    def of(cls, prompt_tokens: Floats, output_tokens: Floats, requests: Floats) -> Grid:
        """Count requests; `requests` is how many each pair of lengths stands for, all of shape `(num_pairs,)`."""
        width = MAX_CELL + 1
        joint = np.bincount(
            cell_of(prompt_tokens) * width + cell_of(output_tokens), weights=requests, minlength=width * width
        )
        counts = np.rint(joint).astype(np.int64)
        held = np.flatnonzero(counts)
        return cls(
            prompt_cell=tuple((held // width).tolist()),
            output_cell=tuple((held % width).tolist()),
            count=tuple(counts[held].tolist()),
        )

    @property
    def total(self) -> int:
        """Requests in all cells."""
        return sum(self.count)

    def to_json(self) -> dict[str, Any]:
        """JSON content; `from_json` reads it."""
        return {"prompt_cell": list(self.prompt_cell), "output_cell": list(self.output_cell), "count": list(self.count)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: str = "$.grid") -> Grid:
        """Read what `to_json` wrote.

        Raises:
            InputError: a list is missing, holds something else, or the three are not of one length.
        """
        lists = [_whole(content.get(name), f"{path}.{name}") for name in ("prompt_cell", "output_cell", "count")]
        if len({len(found) for found in lists}) != 1:
            raise InputError.single(path, "prompt_cell, output_cell and count must be of one length")
        if any(cell > MAX_CELL for found in lists[:2] for cell in found):
            raise InputError.single(path, f"cells must be at most {MAX_CELL}")
        return cls(prompt_cell=lists[0], output_cell=lists[1], count=lists[2])


def _whole(value: Any, path: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError.single(path, "must be a list of whole numbers")
    if not all(type(item) is int and item >= 0 for item in value):
        raise InputError.single(path, "must hold whole numbers of at least 0")
    return tuple(value)
