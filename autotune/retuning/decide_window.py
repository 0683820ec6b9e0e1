"""One decision, from traffic to verdict, without a disk: what a run of `retune` and each step of a replay share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.comparison import ComparedPlan, Comparison, compare
from autotune.comparison.best import best_plan
from autotune.comparison.verdict import worst_broken
from autotune.retuning.decide import Decision, Inputs, PastSwitch, decide
from autotune.scoring.plan_result import Launch
from autotune.study import Study, in_place
from autotune.tuning import PlanResult
from costmodel.errors import InputError


def in_production(study: Study) -> Study:
    """The study as re-tuning answers it: plans of one kind of replica, on the cluster that the baseline runs on.

    Raises:
        InputError: the study is about disaggregated plans alone.
    """
    if study.axes.disaggregated == "only":
        raise InputError.single(
            "$.search.disaggregated",
            'must be "off" or "auto" to tune again: recorded traffic goes to plans of one kind of replica, got "only"',
        )
    return in_place(study)


def judge(
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
        best = best_plan(study, also=also, progress=progress) if find is None else find(study)
        found = compare(study, candidate="best" if best is None else best, scenarios=False)
    return decide(_inputs(now_s, refusal, changed, found), study.retune, history), found


def _inputs(now_s: float, refusal: str | None, changed: bool, found: Comparison | None) -> Inputs:
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
