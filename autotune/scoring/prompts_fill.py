"""Plans whose means are known less well, as prompts take much of their time."""

from __future__ import annotations

from autotune.scoring.plan_result import PlanResult
from autotune.study import Study

MUCH_PROMPT_FRAC = 1.0 / 3.0
"""Share of the time of a stage in which prompts run, from which on means are off by more than 10 % in many plans."""
PROMPTS_FILL = "prompts take a third of the time and more"
IN_A_LOOP = (
    "in a closed loop mean TTFT is off a simulation of the same steps by 10 % at the median and by 34 % in one of ten "
    "plans"
)
ALIKE = (
    "; that is of lengths that vary: requests that are all alike stay in step, and their first tokens may take several "
    "times as long"
)
AT_A_RATE = (
    "at a request rate mean TPOT is off a simulation of the same steps by 5 % at the median and by 40 % in one of ten "
    "plans, mostly too short"
)


def prompts_fill(plan: PlanResult | None) -> bool:
    """Whether prompts take much of the time of a plan of one kind of replica."""
    if plan is None or plan.pools is not None:
        return False
    passes_s = sum(plan.breakdown["prefill_s"].values()) * plan.breakdown["prefill_passes_per_request"]
    prompt_frac = passes_s / plan.layout.pp * plan.metrics["requests_per_s"] / plan.layout.replicas
    return bool(prompt_frac >= MUCH_PROMPT_FRAC)


def prompts_fill_caveat(study: Study, plan: PlanResult | None) -> tuple[str, ...]:
    """The sentence on the means of a plan that prompts fill; empty for any other, and where there is no plan."""
    if not prompts_fill(plan):
        return ()
    work = study.workload
    off = IN_A_LOOP if work.request_rate_per_s is None else AT_A_RATE
    if off == IN_A_LOOP and work.isl.min == work.isl.max and work.osl.min == work.osl.max:
        off += ALIKE
    return (f"{PROMPTS_FILL}: {off}; `autotune simulate` serves a plan by requests",)
