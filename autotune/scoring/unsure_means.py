"""Plans whose means are known less well: prompts take much of their time, or requests come in bursts."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.scoring.plan_result import PERCENTILES, PlanResult
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

BURSTY_CV = 2.0
BURSTS = "requests come in bursts"
IN_BURSTS = (
    "mean TTFT is off a simulation of the same steps by 5 to 10 % at the median and by 22 to 35 % in one of ten plans "
    "where gaps vary 3 to 5 times as much as those of Poisson arrivals, mostly too short"
)
"""Of 100 plans each: `python -m benchmarks.closed_form --arrivals --plans 100 --seed 9 --cv 3`, and `--cv 5`."""
CLOSED_FORM = "means beside simulated percentiles are the closed form's"
FAR_FRAC = 0.05
"""By how much they are off simulated ones where that is said."""
UNSURE = (PROMPTS_FILL, BURSTS)
"""How the sentences on such means begin."""


def prompts_fill(plan: PlanResult | None) -> bool:
    """Whether prompts take much of the time of a plan of one kind of replica."""
    if plan is None or plan.pools is not None:
        return False
    passes_s = sum(plan.breakdown["prefill_s"].values()) * plan.breakdown["prefill_passes_per_request"]
    prompt_frac = passes_s / plan.layout.pp * plan.metrics["requests_per_s"] / plan.layout.replicas
    return bool(prompt_frac >= MUCH_PROMPT_FRAC)


def unsure_means(study: Study, plan: PlanResult | None) -> tuple[str, ...]:
    """Sentences on the means of a plan that are known less well; none of any other, and where there is no plan."""
    if plan is None or plan.pools is not None:
        return ()
    work, said = study.workload, []
    if prompts_fill(plan):
        off = IN_A_LOOP if work.request_rate_per_s is None else AT_A_RATE
        if off == IN_A_LOOP and work.isl.min == work.isl.max and work.osl.min == work.osl.max:
            off += ALIKE
        said.append(f"{PROMPTS_FILL}: {off}")
    if work.request_rate_per_s is not None and work.arrival_cv >= BURSTY_CV:
        said.append(f"{BURSTS}: {IN_BURSTS}")
    return tuple(f"{text}; `autotune simulate` serves a plan by requests" for text in said)


def beside_percentiles(study: Study, plans: Mapping[str, PlanResult | None]) -> tuple[str, ...]:
    """A sentence on plans, by what they are called, whose means are far off those that were simulated for percentiles.

    None under a log, whose means are those of its requests.
    """
    far = []
    for name, plan in plans.items():
        simulated = {} if plan is None else plan.breakdown.get(PERCENTILES, {})
        if plan is None or not simulated or study.means_of_requests:
            continue
        means = {x: (1e3 * plan.metrics[f"{x}_s"], simulated[f"{x}_mean_ms"]) for x in ("ttft", "tpot")}
        if any(abs(shown - found) > FAR_FRAC * found for shown, found in means.values()):
            (_, ttft_ms), (_, tpot_ms) = means.values()
            far.append(f"{name} {ttft_ms:,.0f} ms and {tpot_ms:,.1f} ms")
    return (f"{CLOSED_FORM}; simulated, TTFT and TPOT are on average: {', '.join(far)}",) if far else ()
