"""What servers keep of a model's cache as columns: `costmodel.engine.CacheRule` of every plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.engine import SEEN_IS_KEPT, CacheRule
from costmodel.plan.columns import Columns, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheColumns(Columns):
    """`CacheRule` as numbers. Shape `(num_plans,)` or `(1,)`."""

    whole_windows: Floats
    """1 where layers that look back at a window keep every token, else 0."""
    window_ratio: Floats
    """Tokens in the pool of windows for each token in that of the other layers; 0: one pool."""
    state_ratio: Floats
    """Memory of the pool of recurrent states over that of the other layers; 0: one pool."""
    states: Floats
    """Of each recurrent layer that a running sequence takes."""

    @classmethod
    def of(cls, rules: Sequence[CacheRule]) -> CacheColumns:
        """One row per rule."""
        return cls(
            whole_windows=np.array([float(r.whole_windows) for r in rules]),
            window_ratio=np.array([r.window_ratio for r in rules]),
            state_ratio=np.array([r.state_ratio for r in rules]),
            states=np.array([float(r.states) for r in rules]),
        )


ALL_SEEN = CacheColumns.of([SEEN_IS_KEPT])
