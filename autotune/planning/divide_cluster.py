"""`autotune divide`: which model gets how many GPUs, when, and what one more node would be worth to each.

Units are handed out exactly: dynamic programming over (model, units of every GPU type). The value of a division is the
sum of what its models are worth with what they get; of the tables of values nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil

import numpy as np

from autotune.planning.model_tables import ModelTable, model_table
from autotune.planning.models_study import ClusterStudy, SharedModel
from costmodel.plan.columns import Floats, Ints

THRIFT = 1e-7
"""Value of a unit that is left over, per unit: of two divisions that serve as much, the one on fewer units."""
HOURS = 24.0
Units = tuple[int, ...]
"""Of each GPU type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A part of the day in which the same models are awake, and its division. Tuples are by model."""

    from_h: float
    to_h: float
    awake: tuple[bool, ...]
    units: tuple[Units, ...]
    served_frac: tuple[float, ...]
    """Of the requests that come; 0 of a model that sleeps."""
    value: float
    """Sum of weights times shares served."""
    gain_of_one_more: tuple[tuple[float, ...], ...]
    """By model and GPU type: what one more unit would add to the value, all others as they are."""
    cluster_gain: tuple[float, ...]
    """By GPU type: what one more unit adds if everything is divided anew."""

    @property
    def share_of_day(self) -> float:
        """0 to 1."""
        return (self.to_h - self.from_h) / HOURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Today's division: the same all day."""

    units: tuple[Units, ...]
    served_frac: tuple[tuple[float, ...], ...]
    """By period and model."""
    value: float
    """Over the day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The answer."""

    study: ClusterStudy
    tables: tuple[tuple[ModelTable, ...], ...]
    """By model and GPU type."""
    periods: tuple[Period, ...]
    value: float
    """Over the day."""
    present: Present | None

    @property
    def serves_all(self) -> bool:
        """Whether every awake model is served whole at all times."""
        return all(
            share >= 1.0 - 1e-9
            for period in self.periods
            for share, awake in zip(period.served_frac, period.awake, strict=True)
            if awake
        )


def divide_cluster(study: ClusterStudy) -> Division:
    """Divide a cluster among its models so that the sum of weights times shares served is largest.

    In every part of the day in which the same models are awake it is divided anew; what handing GPUs over takes is not
    counted.
    """
    tables = tuple(
        tuple(
            model_table(own, units=kind.units + 1, unit_gpus=kind.unit_gpus)
            for own, kind in zip(model.studies, study.types, strict=True)
        )
        for model in study.models
    )
    values = [model_values(model, own) for model, own in zip(study.models, tables, strict=True)]
    periods = tuple(
        _period(study, values, start, end, _awake(study.models, 0.5 * (start + end)))
        for start, end in _edges(study.models)
    )
    return Division(
        study=study,
        tables=tables,
        periods=periods,
        value=sum(p.value * p.share_of_day for p in periods),
        present=_present(study, values, periods),
    )


def model_values(model: SharedModel, tables: Sequence[ModelTable]) -> Floats:
    """What a model is worth by its units, an axis for each GPU type: its weight times the share of its load served.

    Replicas on different types serve side by side.
    """
    capacity = np.zeros(tuple(table.capacity_per_s.size for table in tables))
    for axis, table in enumerate(tables):
        shape = [1] * len(tables)
        shape[axis] = -1
        capacity = capacity + table.capacity_per_s.reshape(shape)
    return model.share.weight * np.minimum(capacity / model.rate_per_s, 1.0)


def _period(study: ClusterStudy, values: Sequence[Floats], start: float, end: float, awake: tuple[bool, ...]) -> Period:
    there = tuple(kind.units for kind in study.types)
    weighed = [
        _weighed(study, model, value, awake=here)
        for model, value, here in zip(study.models, values, awake, strict=True)
    ]
    most, choices = best_divisions(weighed)
    units = tuple(division_of(choices, there))
    real = [value if here else np.zeros_like(value) for value, here in zip(values, awake, strict=True)]
    value = sum(float(v[u]) for v, u in zip(real, units, strict=True))

    def after(i: int, axis: int) -> float:
        more = tuple(u + (a == axis) for a, u in enumerate(units[i]))
        return float(real[i][more] - real[i][units[i]])

    def whole(axis: int) -> float:
        more = tuple(u + (a == axis) for a, u in enumerate(there))
        return max(float(most[more] - most[there]), 0.0)

    types = range(len(study.types))
    return Period(
        from_h=start,
        to_h=end,
        awake=awake,
        units=units,
        served_frac=tuple(float(v[u]) / m.share.weight for v, u, m in zip(real, units, study.models, strict=True)),
        value=value,
        gain_of_one_more=tuple(tuple(after(i, axis) for axis in types) for i in range(len(units))),
        cluster_gain=tuple(whole(axis) for axis in types),
    )


def _weighed(study: ClusterStudy, model: SharedModel, value: Floats, *, awake: bool) -> Floats:
    """The values that are summed: thrift counted in, and too few GPUs of a model that is promised some ruled out."""
    held = np.indices(value.shape).sum(axis=0)
    if not awake:
        return np.asarray(-THRIFT * held)
    each = np.array([kind.unit_gpus for kind in study.types])
    gpus = np.tensordot(each, np.indices(value.shape), axes=1)
    own = study.types[0].unit_gpus
    least = min(ceil(model.share.min_gpus / own) * own, study.types[0].units * own)
    return np.where(gpus >= least, value - THRIFT * held, -np.inf)


def _present(study: ClusterStudy, values: Sequence[Floats], periods: Sequence[Period]) -> Present | None:
    """What today's division is worth; None where the study does not say it. A unit that is not whole does not count."""
    if any(model.share.gpus is None for model in study.models):
        return None
    units = tuple(
        tuple(
            min(
                (model.share.gpus or 0) if i == 0 else model.share.also_gpus.get(kind.name, 0),
                kind.units * kind.unit_gpus,
            )
            // kind.unit_gpus
            for i, kind in enumerate(study.types)
        )
        for model in study.models
    )
    served = tuple(
        tuple(
            float(v[u]) / m.share.weight if here else 0.0
            for v, u, m, here in zip(values, units, study.models, period.awake, strict=True)
        )
        for period in periods
    )
    worth = sum(
        period.share_of_day * share * model.share.weight
        for period, row in zip(periods, served, strict=True)
        for share, model in zip(row, study.models, strict=True)
    )
    return Present(units=units, served_frac=served, value=worth)


def _edges(models: Sequence[SharedModel]) -> list[tuple[float, float]]:
    """Parts of the day between all hours at which a model wakes or falls asleep."""
    hours = {0.0, HOURS}
    for model in models:
        hours |= set(model.share.awake_h or ())
    at = sorted(hours)
    return list(pairwise(at))


def _awake(models: Sequence[SharedModel], hour: float) -> tuple[bool, ...]:
    def holds(awake_h: tuple[float, float] | None) -> bool:
        if awake_h is None:
            return True
        start, end = awake_h
        return start <= hour < end if start < end else hour >= start or hour < end

    return tuple(holds(model.share.awake_h) for model in models)


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
