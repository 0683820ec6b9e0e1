"""Scoring candidates: the best knobs of each, by the study's objective among those that keep its constraints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune.scoring.knob_grid import Rows, Variant, make_rows
from autotune.scoring.limits import Figures, Limit, excess_table, p_meets, study_limits
from autotune.scoring.objective import expected, looked_at
from autotune.scoring.plan_result import DERIVED, PlanResult, plan_result
from autotune.scoring.solve_concurrency import bounds, in_range, solve_concurrency
from autotune.space import Candidate
from autotune.study import FEWEST_IN_FLIGHT, IntRange, Study
from costmodel.estimate.result import Estimate
from costmodel.plan.columns import Floats


def score(study: Study, candidates: Sequence[Candidate]) -> list[PlanResult]:
    """One result per candidate, in their order, with the best of the knobs that the study leaves open."""
    if not candidates:
        return []
    search = study.search
    choices = [(w, kv) for w in search.weight_dtype for kv in search.kv_dtype]
    variants = [Variant(candidate=c, weight_dtype=w, kv_dtype=kv) for c in candidates for w, kv in choices]
    owner = np.repeat(np.arange(len(candidates)), len(choices) * len(search.max_num_batched_tokens))
    return _best(study, make_rows(study, variants, search.max_num_batched_tokens), owner, len(candidates))


def score_variant(study: Study, variant: Variant, batched_tokens: Sequence[int]) -> PlanResult:
    """One plan with given dtypes and token budgets to choose from."""
    rows = make_rows(study, [variant], batched_tokens)
    return _best(study, rows, np.zeros(len(batched_tokens), dtype=np.int64), 1)[0]


def _best(study: Study, rows: Rows, owner: np.ndarray[tuple[int], np.dtype[np.int64]], count: int) -> list[PlanResult]:
    limits = study_limits(study)
    tried = [RowsAt(rows, concurrency, limits, study) for concurrency in _concurrencies(study, rows, limits)]
    keys = np.stack([t.key for t in tried])
    best_of_row = keys.argmax(axis=0)
    row_key = keys.max(axis=0)
    order = np.lexsort((np.arange(owner.size), -row_key, owner))
    firsts = order[np.searchsorted(owner[order], np.arange(count))]
    return [tried[best_of_row[row]].result(int(row)) for row in firsts]


STEPS_BACK = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.35, 0.25)
"""Shares of the solved concurrency that are tried: at the limit itself keeping it is a coin toss, and where prompts
ride on decode steps, throughput is highest while there is a step for each."""


def _concurrencies(study: Study, rows: Rows, limits: tuple[Limit, ...]) -> list[Floats]:
    asked, size = study.search.concurrency, rows.variant.shape[0]
    fixed = study.workload.concurrency is not None or study.workload.request_rate_per_s is not None
    if not fixed and asked is not None and not isinstance(asked, IntRange):
        return [np.full(size, float(value)) for value in asked]
    solved = solve_concurrency(rows, limits)
    if fixed or study.objective.metric in FEWEST_IN_FLIGHT:
        return [solved]
    replicas = rows.batch.layout.replicas
    least = bounds(study, replicas)[0] * replicas
    tried = [np.maximum(np.floor(solved * share / replicas) * replicas, least) for share in STEPS_BACK]
    return [in_range(study, concurrency) for concurrency in tried]


def order_key(
    study: Study, limits: tuple[Limit, ...], figures: Figures, price_per_hour: Floats
) -> tuple[Floats, Floats, Floats]:
    """What orders rows, higher is better; excesses, shape `(len(limits), rows)`; P(meets).

    `price_per_hour` is of all GPUs of a row, US dollars, shape `(rows,)` or `(1,)`; NaN where it is not known.

    Any feasible row goes before any infeasible one, and those by how far they are off.
    """
    excess = excess_table(limits, figures)
    meets = p_meets(study, figures)
    gain = expected(study, {name: getattr(figures, name) for name in looked_at(study)}, meets, price_per_hour)
    gain = -gain if study.objective.direction == "minimize" else gain
    scale = np.array([max(abs(limit.limit), 1e-12) for limit in limits])[:, None]
    over = np.maximum(excess, 0.0) / scale
    derived = np.array([limit.code == DERIVED for limit in limits])
    worst = np.where(over[~derived].max(axis=0) > 0.0, over[~derived].max(axis=0), over.max(axis=0))
    bounded = np.nan_to_num(gain / (1.0 + np.abs(gain)), nan=-2.0)
    return np.where(worst <= 0.0, 10.0 + bounded, -np.minimum(worst, 1e300)), excess, meets


def finite_price(price: float) -> float | None:
    """A price as a value; None stands for one that is not known."""
    return None if np.isnan(price) else float(price)


class RowsAt:
    """All rows at one concurrency each, with the key that orders them: higher is better."""

    def __init__(self, rows: Rows, concurrency: Floats, limits: tuple[Limit, ...], study: Study) -> None:
        self.rows, self.concurrency, self.limits = rows, concurrency, limits
        self.estimate: Estimate = rows.serving(concurrency)
        self.key, self.excess, self.p_meets = order_key(study, limits, self.estimate, rows.price_per_hour)
        self.values = np.stack([limit.value(self.estimate) for limit in limits])

    def result(self, row: int) -> PlanResult:
        """The plan of a row."""
        return plan_result(
            self.rows.variants[self.rows.variant[row]],
            row,
            concurrency=float(self.concurrency[row]),
            batched_tokens=float(self.rows.batched_tokens[row]),
            estimate=self.estimate,
            limits=self.limits,
            excess=self.excess,
            values=self.values,
            p_meets=self.p_meets,
            price_per_hour=finite_price(self.rows.price_per_hour[row]),
        )
