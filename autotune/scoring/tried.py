"""What was evaluated of a layout besides its best knobs: kept in the layout's trial, so that all of it can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIGURES = ("total_tokens_per_s_per_gpu", "ttft_s", "tpot_s")
"""Figures of every evaluation that are kept; what else a report shows is kept of the best knobs alone."""
DIGITS = 6
"""Significant digits kept: the model is not surer than that, and a trial may hold thousands of evaluations."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Every evaluation of one layout, a column each, all of shape `(evaluations,)`."""

    columns: Mapping[str, NDArray[np.float64]]
    """Token budget and requests in flight; `FIGURES`; `p_meets`; `excess_frac`: how far the worst limit is broken,
    relative to it, 0 where all are kept."""
    dtypes: Mapping[str, Sequence[str]]
    """`weight_dtype` and `kv_dtype` of every evaluation, where the study gives several to choose from."""

    def to_json(self) -> dict[str, Any]:
        """Lists of equal length by name, whole numbers as such; None where a figure is not finite."""
        kept = rounded(np.array(list(self.columns.values())))
        lists: dict[str, Any] = {name: _listed(column) for name, column in zip(self.columns, kept, strict=True)}
        return lists | {name: list(values) for name, values in self.dtypes.items()}


def _listed(column: NDArray[np.float64]) -> list[Any]:
    if not np.isfinite(column).all():
        return [x if np.isfinite(x) else None for x in column.tolist()]
    whole = column % 1.0 == 0.0
    if not whole.any():
        return column.tolist()
    if whole.all() and (abs(column) < 2**53).all():
        return column.astype(np.int64).tolist()
    return [int(x) if x.is_integer() else x for x in column.tolist()]


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """To `DIGITS` significant digits; shape kept."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = np.floor(np.log10(np.abs(values)))
        scale = 10.0 ** np.clip(DIGITS - 1 - places, -300.0, 300.0)
        found = np.round(values * scale) / scale
    return np.where(np.isfinite(found), found, values)
