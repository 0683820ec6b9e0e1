"""Candidates as points that a sampler can propose: one axis per decision, none of them following from the others.

Degrees multiply to the GPU count, so most tuples of degrees are no plan at all. The axes are those from which the rest
follows (with the GPUs, stages, and width given, replicas and attention TP are), each an ordinal number of the values
that occur. What is proposed seldom is a candidate; it stands for the nearest one that is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autotune.engines import split_layers
from autotune.space import Candidate
from costmodel.plan.columns import Floats, Ints

if TYPE_CHECKING:
    import optuna

OTHER_CATEGORY = 2.0
"""Distance of two engines or GPU types, in steps along a numbered axis."""


def _decisions(candidate: Candidate) -> dict[str, Any]:
    layout = candidate.layout
    stages = layout.stage_layers
    return {
        "engine": candidate.engine,
        "gpu": candidate.gpu or "cluster",
        "gpus": layout.gpus,
        "pp": layout.pp,
        "width": layout.width,
        "attn_dp": layout.attn_dp,
        "attn_cp": layout.attn_cp,
        "moe_ep": layout.moe_ep,
        "dcp": layout.dcp,
        "redundant_experts": layout.redundant_experts,
        "two_batch_overlap": layout.two_batch_overlap,
        "last_stage_fewer": split_layers(candidate.engine, sum(stages), layout.pp)[-1] - stages[-1],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleAxes:
    """The axes of a list of candidates, and where each candidate lies on them."""

    distributions: dict[str, optuna.distributions.BaseDistribution]
    """By axis; axes on which all candidates agree are left out."""
    values: dict[str, list[Any]]
    """By axis: the value of each place, ascending."""
    places: Floats
    """Place of every candidate on every axis, shape `(candidates, axes)`."""
    is_category: NDArray[np.bool_]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> SampleAxes:
        """Axes of at least one candidate."""
        import optuna

        rows = [_decisions(c) for c in candidates]
        values: dict[str, list[Any]] = {}
        columns: list[Ints] = []
        for name in rows[0]:
            known = sorted({row[name] for row in rows})
            if len(known) > 1:
                at = {value: i for i, value in enumerate(known)}
                values[name] = known
                columns.append(np.array([at[row[name]] for row in rows], dtype=np.int64))
        categories = [isinstance(v[0], str) for v in values.values()]
        made: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(v)
            if isinstance(v[0], str)
            else optuna.distributions.IntDistribution(0, len(v) - 1)
            for name, v in values.items()
        }
        places = np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((len(rows), 0))
        return cls(distributions=made, values=values, places=places, is_category=np.array(categories, dtype=bool))

    def params(self, index: int) -> dict[str, Any]:
        """A candidate as a trial's parameters."""
        return {
            name: self.values[name][int(place)] if category else int(place)
            for name, place, category in zip(self.values, self.places[index], self.is_category, strict=True)
        }

    def nearest(self, params: dict[str, Any], taken: NDArray[np.bool_]) -> int:
        """The candidate nearest to a proposal among those that are not taken, of which there must be one."""
        wanted = np.array(
            [
                self.values[n].index(params[n]) if c else params[n]
                for n, c in zip(self.values, self.is_category, strict=True)
            ]
        )
        free = np.flatnonzero(~taken)
        apart = np.abs(self.places[free] - wanted)
        apart[:, self.is_category] = OTHER_CATEGORY * (apart[:, self.is_category] > 0.0)
        return int(free[int(apart.sum(axis=1).argmin())])
