"""Whether to proceed, and what to do instead, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.evaluation.values import Check
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, TITLES
from autotune.scoring.objective import CLOSE_FRAC, Behind
from autotune.scoring.overload import ENDLESS
from autotune.scoring.pair_words import against, other_settings
from autotune.scoring.plan_name import full_name
from autotune.scoring.reach import unmeasured
from autotune.study import Study
from autotune.text.numbers import number, probability, within
from autotune.tuning import PlanResult

STAGE_RATE = "min_stage_tokens_per_s_per_gpu"


def failures(checks: Sequence[Check]) -> list[Check]:
    """Checks that fail; what follows from others only where they all pass."""
    return [c for c in checks if not c.passed and c.name != JOINT_PROBABILITY] or [c for c in checks if not c.passed]


def binding(checks: Sequence[Check]) -> Check:
    """The check with the least room; what follows from others only where they all pass, a rate only where it fails.

    A latency that grows without bound follows from the requests that are not served.
    """
    roomy = [c for c in checks if c.margin_frac is not None and c.name != LOAD_SERVED]
    among = [c for c in failures(checks) if not c.grows] or roomy
    return min(among, key=lambda c: float("-inf") if c.margin_frac is None else c.margin_frac)


def conclusion(
    study: Study,
    result: PlanResult | None,
    best: PlanResult | None,
    checks: Sequence[Check],
    distance: Behind | None,
) -> str:
    """The last section: proceed or not, why, and what instead."""
    failed = failures(checks)
    instead = _instead(study, result, best, checks)
    if result is None:
        rules = "; ".join(f"{c.name}: {c.rests_on}" for c in failed)
        return f"Do not proceed: the engine's rules forbid the plan ({rules}). {instead}"
    if failed:
        return f"Do not proceed: {'; '.join(_off(c) for c in failed)}. {instead}{_mind(failed, result, best)}"
    if best is None or distance is None or distance.frac <= CLOSE_FRAC or best.runs_as(result):
        what = "Measure before you proceed" if unmeasured(study, result) else "Proceed"
        return f"{what}: every limit is kept, and no plan is better by more than {CLOSE_FRAC:.0%}."
    return f"Every limit is kept, but another plan is better. {instead}"


def _off(check: Check) -> str:
    if check.grows:
        return f"{_title(check)} {ENDLESS}"
    if check.value is None or check.limit is None:
        return check.name
    share = abs(check.margin_frac or 0.0)
    by = f", short by {min(share, 1.0):.0%}" if check.value < check.limit else f", over by {share:.0%}"
    by = "" if share < 0.005 else by if share < 10.0 else f", {share + 1.0:,.0f} times the limit"
    return f"{_title(check)} is {number(check.value, 4)} against {number(check.limit, 4)} {check.unit}{by}"


def _title(check: Check) -> str:
    return within(TITLES.get(check.name, check.name))


def _instead(study: Study, result: PlanResult | None, best: PlanResult | None, checks: Sequence[Check]) -> str:
    if best is None:
        which = "" if result is None else f" ({_title(binding(checks))})"
        loosen = f"loosen the one that binds{which}, or change the model, GPUs or load"
        return f"No plan of this study keeps every limit: {loosen}."
    name = full_name(study, best)
    if result is None:
        return f"Instead: {name}, which keeps every limit with probability {probability(best.p_meets)}."
    settings = other_settings(study, best, result)
    return f"Instead: {name}{f' with {settings}' if settings else ''}, which {against(study, best, result)}."


def _mind(failed: Sequence[Check], result: PlanResult, best: PlanResult | None) -> str:
    """A limit on tokens through each GPU of a stage is kept by more stages as well as by more tokens."""
    if best is None or all(c.name != STAGE_RATE for c in failed):
        return ""
    if best.metrics["total_tokens_per_s"] >= result.metrics["total_tokens_per_s"]:
        return ""
    return (
        f" Mind that it serves fewer tokens in all: every token passes every stage, so {STAGE_RATE} is kept by cutting "
        f"the model into {best.layout.pp} stages as well as by serving more."
    )
