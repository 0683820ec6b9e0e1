"""Spaces too large to cover: an Optuna sampler proposes, the nearest plan not scored yet is taken.

Proposals seldom are valid plans, and samplers repeat themselves on discrete spaces, so each proposal stands for its
nearest missing candidate (`sample_axes`), and the sampler is told what that one came to. TPE is told of each limit how
far it is broken; NSGA-II, for several objectives, gets the scored plans as its generations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune.scoring.best_knobs import score
from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_result import PlanResult, plan_key, relative_excess
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning.executor import Scorer
from autotune.tuning.sampling.axes import SampleAxes
from autotune.tuning.sampling.bounded_history import Memory

if TYPE_CHECKING:
    import optuna

BATCH = 8
"""Proposals scored together; the model is far cheaper than a proposal, but each sees what the last batch came to."""
FIRST = 0.15
"""Share of the budget that is drawn at random before TPE proposes: it has many axes to learn from."""
GENERATION = 40
"""Plans of a generation of NSGA-II."""


def sample(
    study: Study,
    missing: Sequence[Candidate],
    known: Sequence[PlanResult],
    *,
    budget: int,
    scorer: Scorer = score,
    goals: Sequence[tuple[str, str]] = (),
) -> Iterator[list[PlanResult]]:
    """Score up to `budget` candidates, known ones included, or until the study's time is up.

    `scorer` gives at least one result of each candidate; without `goals` the objective is the study's own.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it says is for people who call Optuna themselves
    deadline = time.monotonic() + (study.search.timeout_s or inf)
    asked = [direction for _, direction in goals] or [study.objective.direction]
    directions = [optuna.study.StudyDirection[direction.upper()] for direction in asked]
    memory = Memory(lambda number: _sampler(study, budget, number, several=bool(goals)), directions)
    everything = [*missing, *dict.fromkeys(p.candidate for p in known)]
    if not everything:
        return
    axes = SampleAxes.of(everything)
    at = {plan_key(c): i for i, c in enumerate(everything)}
    taken = np.arange(len(everything)) >= len(missing)

    def add_results(plans: Sequence[PlanResult], attrs: dict[str, Any]) -> None:
        trials = (_as_trial(study, p, axes, at[p.plan], goals, attrs) for p in plans)
        memory.tell([trial for trial in trials if trial is not None])

    add_results(known, {})
    # uniform over the candidates: what the axes are drawn from at random is nearest to few of them, again and again
    uniform: dict[str, optuna.distributions.BaseDistribution] = {
        "candidate": optuna.distributions.IntDistribution(0, len(everything) - 1)
    }
    first = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=study.search.seed))
    at_random = budget if study.search.sampler == "random" else max(round(FIRST * budget), min(BATCH, budget))
    scored = len({p.plan for p in known})
    while (open_trials := budget - scored) > 0 and not taken.all() and time.monotonic() < deadline:
        batch: list[Candidate] = []
        attrs: dict[str, Any] = {}
        for _ in range(min(BATCH, open_trials, int((~taken).sum()))):
            if scored + len(batch) < at_random or not axes.distributions:
                index = _free(int(first.ask(uniform).params["candidate"]), taken)
            else:
                params, attrs = memory.ask(axes.distributions)
                index = axes.nearest(params, taken)
            taken[index] = True
            batch.append(everything[index])
        results = scorer(study, batch)
        add_results(results, attrs)
        scored += len({p.plan for p in results})
        yield results


def _sampler(study: Study, budget: int, number: int, *, several: bool) -> optuna.samplers.BaseSampler:
    import optuna

    seed, asked = (study.search.seed + number) % 2**32, study.search.sampler
    if asked == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if asked == "nsga2" or (several and asked == "auto"):
        return optuna.samplers.NSGAIISampler(population_size=max(min(GENERATION, budget // 8), 2), seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, constant_liar=False)


def _free(index: int, taken: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """The first candidate from `index` on that is not taken, round the end."""
    free = np.flatnonzero(~taken)
    return int(free[np.searchsorted(free, index) % free.size])


def _as_trial(
    study: Study,
    plan: PlanResult,
    axes: SampleAxes,
    index: int,
    goals: Sequence[tuple[str, str]],
    attrs: dict[str, Any],
) -> optuna.trial.FrozenTrial | None:
    """A scored plan as a trial of the sampler's own study; None where a figure is not finite."""
    import optuna

    values = [plan.metrics[name] for name, _ in goals] or [plan_expected(study, plan)]
    if not all(map(isfinite, values)):
        return None
    return optuna.trial.create_trial(
        values=values,
        params=axes.params(index),
        distributions=axes.distributions,
        # relative to each limit: milliseconds and shares of memory have to be weighed against each other
        constraints={"limits": sum(min(relative_excess(v), 1e6) for v in plan.violations)},
        user_attrs={"plan_key": plan.key},
        system_attrs=dict(attrs),
    )
