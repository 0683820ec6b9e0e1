"""Scoring candidates: the best knobs of each, by the study's objective among those that keep its constraints."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from autotune.engines.service import Knobs
from autotune.scoring.knob_grid import UNBOUNDED_SEQS, KnobGrid, Variant
from autotune.scoring.plan_result import PlanResult, ScoredRows, plan_key
from autotune.scoring.solve_concurrency import solve_concurrency
from autotune.space import Candidate
from autotune.study import Study, cluster_of, dtype_choices
from costmodel.plan.columns import Floats, Ints


def score(study: Study, candidates: Sequence[Candidate]) -> list[PlanResult]:
    """One result per candidate, in their order, with the best of the knobs that the study leaves open."""
    return score_asked([(study, candidates)])[0]


def score_asked(asked: Sequence[tuple[Study, Sequence[Candidate]]]) -> list[list[PlanResult]]:
    """`score` of several studies at once, which may differ in their clusters and in their requests' lengths alone."""
    if not any(candidates for _, candidates in asked):
        return [[] for _ in asked]
    grid, owner = _grid(asked)
    results = iter(_best(grid, owner))
    return [list(islice(results, len(candidates))) for _, candidates in asked]


def score_choices(study: Study, candidates: Sequence[Candidate]) -> list[list[PlanResult]]:
    """Of each candidate one result for every choice of dtypes and token budget that the study leaves open."""
    found: list[list[PlanResult]] = [[] for _ in candidates]
    if candidates:
        grid, owner = candidate_grid(study, candidates)
        tried = KnobGridAtLoad(grid, solve_concurrency(grid))
        for row, place in enumerate(owner.tolist()):
            found[place].append(tried.result(row))
    return found


def score_launches(study: Study, plans: Sequence[PlanResult]) -> list[PlanResult]:
    """Plans with their own dtypes and token budgets under a study, each at the load that is best for it there."""
    return _best(launch_grid(study, plans), np.arange(len(plans))) if plans else []


def launch_grid(study: Study, plans: Sequence[PlanResult]) -> KnobGrid:
    """A row for each of one or more plans, with its own dtypes and token budget."""
    budgets = sorted({plan.knobs.max_num_batched_tokens for plan in plans})
    grid = KnobGrid.of(study, [Variant.of(plan) for plan in plans], budgets)
    own = [i * len(budgets) + budgets.index(plan.knobs.max_num_batched_tokens) for i, plan in enumerate(plans)]
    return grid.take(np.array(own))


def candidate_grid(study: Study, candidates: Sequence[Candidate]) -> tuple[KnobGrid, Ints]:
    """Every choice of dtypes and token budget of each candidate, and the candidate of each row, ascending from 0."""
    return _grid([(study, candidates)])


def _grid(asked: Sequence[tuple[Study, Sequence[Candidate]]]) -> tuple[KnobGrid, Ints]:
    budgets = asked[0][0].search.max_num_batched_tokens
    variants, rows = list[Variant](), list[int]()
    for place, (study, candidates) in enumerate(asked):
        known: dict[tuple[str, str | None], list[tuple[str | None, str | None]]] = {}
        for c in candidates:
            if (c.engine, c.gpu) not in known:
                known[c.engine, c.gpu] = dtype_choices(study, c.engine, cluster_of(study, c.gpu, c.layout.gpus).gpu)
            choices = known[c.engine, c.gpu]
            variants += [Variant(candidate=c, weight_dtype=w, kv_dtype=kv, study=place) for w, kv in choices]
            rows.append(len(choices) * len(budgets))
    grid = KnobGrid.of_studies(tuple(study for study, _ in asked), variants, budgets)
    return grid, np.repeat(np.arange(len(rows)), rows)


def _best(grid: KnobGrid, owner: Ints) -> list[PlanResult]:
    tried = KnobGridAtLoad(grid, solve_concurrency(grid, owner))
    return [tried.result(entry) for entry in tried.best_of_each(owner).tolist()]


class KnobGridAtLoad:
    """All rows of a grid at one number of requests in flight each, over all replicas."""

    def __init__(self, grid: KnobGrid, concurrency: Floats) -> None:
        self.grid, self.concurrency = grid, concurrency
        estimate = grid.serving(concurrency)
        self.scored = ScoredRows.of(grid.study, estimate, grid.price_per_hour)
        # at a rate there are as many in flight as come while one is served (Little's law)
        at_rate = grid.study.workload.request_rate_per_s is not None
        self.in_flight = np.maximum(estimate.requests_per_s * estimate.e2e_s, 1.0) if at_rate else concurrency

    @classmethod
    def each(cls, grid: KnobGrid, loads: Sequence[Floats]) -> KnobGridAtLoad:
        """All rows at the first of several loads, then all at the second, and so on: one call of the cost model."""
        if len(loads) > 1:
            grid = grid.take(np.tile(np.arange(grid.variant.size), len(loads)))
        return cls(grid, np.concatenate(loads))

    def best_of_each(self, owner: Ints) -> Ints:
        """The best row of each owner, as `Standing.first_of_each`; `owner` is of the rows at one load."""
        return self.scored.standing.in_rows(owner.size).first_of_each(owner)

    def result(self, row: int) -> PlanResult:
        """The plan of a row."""
        variant = self.grid.variants[self.grid.variant[row]]
        candidate, concurrency = variant.candidate, float(self.in_flight[row])
        layout = candidate.layout
        per_rank = concurrency / min(layout.replicas, concurrency) / layout.attn_dp
        knobs = Knobs(
            concurrency=round(concurrency),
            max_num_batched_tokens=round(float(self.grid.batched_tokens[row])),
            max_num_seqs=min(int(np.ceil(per_rank)), self.grid.study.engine_options.max_num_seqs or UNBOUNDED_SEQS),
            weight_dtype=variant.weight_dtype,
            kv_dtype=variant.kv_dtype,
        )
        return self.scored.result(
            row,
            plan=plan_key(candidate),
            engine=candidate.engine,
            layout=layout,
            knobs=knobs,
            gpu=candidate.gpu,
            own_options=variant.own_options,
        )
