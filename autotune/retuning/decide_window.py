"""One decision, from traffic to verdict, without a disk: what a run of `retune` and each step of a replay share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.comparison import ComparedPlan, Comparison, compare
from autotune.comparison.best import SHORTLIST, best_plan, capacity_study, close_to_most, drawn_capacities, served_log
from autotune.comparison.compare_plans import on_traffic
from autotune.comparison.verdict import worst_broken
from autotune.disaggregated.rescore import rescored, rescored_each
from autotune.retuning.decide import DAY_S, Decision, Inputs, PastSwitch, decide
from autotune.retuning.entry import iso
from autotune.scoring.plan_result import Launch
from autotune.scoring.value_and_gain import served_within_limits
from autotune.study import Study, in_place
from autotune.traffic.profile import WorkloadProfile
from autotune.tuning import PlanResult, score_baseline, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedWindow:
    """A kind of traffic, and how much of the time it comes."""

    study: Study
    """With this traffic as its workload."""
    share: float


def best_over(windows: Sequence[WeighedWindow], also: Sequence[PlanResult] = ()) -> PlanResult | None:
    """The launch that can be expected to serve most within the limits over all windows, in proportion to their shares.

    Of those that are close the first one: of `also`, then of the first window's own ranking.

    Looked at are the first plans of each window's own ranking, with the settings that are best for it, and `also`. None
    where a latency is minimised or a window has no rate: what is served then says nothing.
    """
    launches: dict[object, PlanResult] = {plan.launch: plan for plan in also}
    for window in windows:
        asked = capacity_study(replace(window.study, baseline=None))
        rough = tune(replace(asked, workload=replace(asked.workload, points=())))
        launches |= {plan.launch: plan for plan in (*rough.ranked, *rough.infeasible)[:SHORTLIST]}
    plans = list(launches.values())
    total = np.zeros(len(plans))
    for window in windows:
        asked = capacity_study(window.study)
        found = rescored_each(asked, plans)
        served = served_within_limits(window.study, drawn_capacities(asked, [p if p.feasible else None for p in found]))
        if served is None:
            return None
        total = total + window.share * served.mean(axis=1)
    return plans[int(close_to_most(total)[0])] if plans else None


def on_own_cluster(study: Study) -> Study:
    """The study as re-tuning answers it: plans on the cluster that the baseline runs on."""
    return in_place(study, pools=True)


def judge(  # noqa: PLR0913  # what is known of a window
    study: Study,
    *,
    now_s: float,
    refusal: str | None,
    changed: bool,
    history: Sequence[PastSwitch],
    also: Sequence[str] = (),
    find: Callable[[Study], PlanResult | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Decision, Comparison | None]:
    """Tune where traffic changed, put the current plan and the best one on the same traffic, and decide.

    Args:
        study: with the window's traffic as its workload and the current plan as its baseline.
        now_s: end of the window, Unix time.
        refusal: why the window cannot be judged; None: it can.
        changed: whether traffic drifted or the study is another since the current plan was chosen.
        history: switches that were made.
        also: full plan strings to look at whatever the ranking at mean lengths says of them.
        find: finds the best plan of the study, where it need not be tuned; then `also` counts for nothing.
        progress: of the tuning, as in `tune`.

    Returns:
        The decision, and what it compared; None where nothing was tuned.

    Raises:
        InputError: the study has no current plan, or it has no meaning on these GPUs.
    """
    found: Comparison | None = None
    if refusal is None and changed:
        log = None if (current := score_baseline(study)) is None else served_log(study, current.result)
        best = best_plan(study, also=also, log=log, progress=progress) if find is None else find(study)
        found = compare(study, candidate="best" if best is None else best, log=log, scenarios=False)
        left = None if best is None else _left_lately(best, now_s, history)
        if best is not None and left is not None:
            return _judged_together(study, now_s, (best, found), left, history)
    return decide(_inputs(now_s, found, refusal=refusal, changed=changed), study.retune, history), found


REMEMBERED_S = 7 * DAY_S
"""How long a plan that was left is known as one that other traffic spoke against: a week, for weekends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """A plan that was left, and for which traffic."""

    profile: WorkloadProfile
    since_s: float
    """How long ago: about as long there was traffic of that kind."""
    ran_s: float
    """How long it ran before, on traffic that it was right for."""


def _left_lately(best: PlanResult, now_s: float, history: Sequence[PastSwitch]) -> _Left | None:
    """When and for what the best plan's layout was left last; None: not within a week, or by hand."""
    ordered = sorted(history, key=lambda past: past.at_s)
    for place, past in reversed(list(enumerate(ordered))):
        age = max(now_s - past.at_s, 0.0)
        if past.before.plan == best.plan and past.profile is not None and age < REMEMBERED_S:
            ran = past.at_s - ordered[place - 1].at_s if place else REMEMBERED_S
            return _Left(profile=past.profile, since_s=max(age, LEAST_S), ran_s=min(max(ran, LEAST_S), REMEMBERED_S))
    return None


LEAST_S = 600.0
"""Shorter stretches of traffic count as long as this."""


def _judged_together(
    study: Study, now_s: float, alone: tuple[PlanResult, Comparison], left: _Left, history: Sequence[PastSwitch]
) -> tuple[Decision, Comparison]:
    """Decide where the best plan for the window was left for other traffic lately: which may come back.

    Both kinds of traffic count, in proportion to how long they lasted, so that traffic which alternates leads to one
    plan that serves both. Switching each time would gain in every window and lose all that the switches cost.
    """
    other = on_traffic(study, left.profile)
    share = left.ran_s / (left.ran_s + left.since_s)
    windows = (WeighedWindow(study=study, share=share), WeighedWindow(study=other, share=1.0 - share))
    current = alone[1].current.result
    plan = best_over(windows, [alone[0], *([] if current is None else [current])])
    if plan is None:
        return decide(_inputs(now_s, alone[1]), study.retune, history), alone[1]
    here, there = (compare(s, candidate=rescored(s, plan), scenarios=False) for s in (study, other))
    mine, others = (_inputs(now_s, found) for found in (here, there))
    both = replace(
        mine,
        current_value_per_s=share * mine.current_value_per_s + (1.0 - share) * others.current_value_per_s,
        candidate_value_per_s=share * mine.candidate_value_per_s + (1.0 - share) * others.candidate_value_per_s,
        p_better=share * mine.p_better + (1.0 - share) * others.p_better,
        earlier=f", together with the traffic of {iso(now_s - left.since_s)} ({1.0 - share:.0%}), which may come back",
    )
    return decide(both, study.retune, history), here


def _inputs(now_s: float, found: Comparison | None, *, refusal: str | None = None, changed: bool = True) -> Inputs:
    if found is None:
        return Inputs(now_s=now_s, refusal=refusal, changed=changed, current_keeps=True)
    current, candidate, cost = found.current, found.candidate, found.switch
    return Inputs(
        now_s=now_s,
        refusal=refusal,
        changed=changed,
        current=_launch(current),
        current_keeps=current.keeps,
        current_breaks=worst_broken(current),
        current_value_per_s=current.value_per_s,
        candidate=None if candidate is None else _launch(candidate),
        candidate_keeps=candidate is not None and candidate.keeps,
        candidate_value_per_s=0.0 if candidate is None else candidate.value_per_s,
        p_better=found.p_better,
        switch_duration_s=0.0 if cost is None else cost.duration_s,
        switch_loss=0.0 if cost is None else cost.loss(current.value_per_s),
    )


def _launch(plan: ComparedPlan) -> Launch | None:
    return None if plan.result is None else plan.result.launch
