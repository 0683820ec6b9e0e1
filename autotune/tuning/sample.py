"""Spaces too large to cover: an Optuna sampler proposes, the nearest plan not scored yet is taken.

The sampler sees the degrees of parallelism as numbers on logarithmic axes. Proposals seldom are valid plans,
and samplers repeat themselves on discrete spaces, so each proposal stands for its nearest missing candidate.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from math import inf, log2
from typing import TYPE_CHECKING

import numpy as np

from autotune.space import ENGINES, Candidate
from autotune.study import Study
from autotune.tuning.plans import PlanResult
from autotune.tuning.score import score

if TYPE_CHECKING:
    import optuna

AXES = ("replicas", "pp", "attn_tp", "attn_dp", "moe_tp", "moe_ep")
BATCH = 16
"""Proposals scored together; the model is far cheaper than a proposal."""


def sample(
    study: Study,
    missing: Sequence[Candidate],
    known: Sequence[PlanResult],
    *,
    budget: int,
    take: Callable[[list[Candidate]], list[Candidate]] = list,
    others: Callable[[], int] = int,
) -> Iterator[list[PlanResult]]:
    """Score up to `budget` candidates, known ones included, or until the study's time is up.

    Args:
        study: the question.
        missing: candidates to choose from.
        known: plans scored before.
        budget: plans scored in all, by whomever.
        take: which of some candidates are this worker's to score.
        others: plans that other workers have scored since `known`.
    """
    import optuna

    deadline = time.monotonic() + (study.search.timeout_s or inf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        direction = optuna.study.StudyDirection[study.objective.direction.upper()]
        search = optuna.create_study(direction=direction, sampler=_sampler(study))
    axes = {name: optuna.distributions.IntDistribution(1, study.cluster.gpus, log=True) for name in AXES}
    engines = optuna.distributions.CategoricalDistribution(ENGINES)
    space: dict[str, optuna.distributions.BaseDistribution] = {**axes, "engine": engines}
    search.add_trials([_told(p, study, space) for p in known])
    left = list(missing)
    places = np.array([[log2(getattr(c.layout, a)) for a in AXES] for c in left])
    taken = np.zeros(len(left), dtype=bool)
    scored = len(known)
    while (open_trials := budget - scored - others()) > 0 and not taken.all() and time.monotonic() < deadline:
        batch = []
        for _ in range(min(BATCH, open_trials, int((~taken).sum()))):
            proposal = search.ask(space)
            search.tell(proposal, state=optuna.trial.TrialState.FAIL)
            batch.append(_nearest(proposal.params, left, places, taken))
        results = score(study, take(batch))
        search.add_trials([_told(p, study, space) for p in results])
        scored += len(results)
        yield results


def _sampler(study: Study) -> optuna.samplers.BaseSampler:
    import optuna

    if study.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=study.search.seed)
    if study.search.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=study.search.seed)
    return optuna.samplers.TPESampler(seed=study.search.seed)


def _nearest(
    params: dict[str, object],
    left: Sequence[Candidate],
    places: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    taken: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> Candidate:
    wanted = np.array([log2(float(str(params[a]))) for a in AXES])
    other_engine = np.array([c.engine != params["engine"] for c in left])
    distance = np.abs(places - wanted).sum(axis=1) + 2.0 * other_engine + np.where(taken, inf, 0.0)
    index = int(distance.argmin())
    taken[index] = True
    return left[index]


def _told(
    plan: PlanResult, study: Study, space: dict[str, optuna.distributions.BaseDistribution]
) -> optuna.trial.FrozenTrial:
    import optuna

    return optuna.trial.create_trial(
        value=plan.metrics[study.objective.metric],
        params={**{a: getattr(plan.layout, a) for a in AXES}, "engine": plan.engine},
        distributions=space,
        constraints=dict(plan.margins),
        user_attrs={"plan_key": plan.key},
    )
