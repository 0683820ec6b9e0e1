"""The decision itself, as a pure function: what `autotune retune` and its replay on recorded traffic both call.

Rules in their order, the first that applies decides: what cannot be judged is refused; without a change there is
nothing to do; then what binds however large the gain is, then what a broken limit overrides, then the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from autotune.comparison.verdict import LIMIT_BROKEN, out_of_limits_words
from autotune.scoring.plan_result import Launch
from autotune.scoring.value_and_gain import gain_over
from autotune.space.pooled_planstring import is_pooled
from autotune.study import Baseline, RetunePolicy
from autotune.text.numbers import probability
from autotune.traffic.profile import WorkloadProfile

DAY_S = 24 * 3600.0

KEEP, SWITCH, REFUSE = "keep", "switch", "refuse"
SETTLED = (
    "same_plan",
    "no_candidate",
    "no_gain",
    "switch_costs_more",
    "gain_too_small",
    "not_sure",
    "candidate_breaks_limit",
    "nothing_feasible",
)
"""Rules that decide the same again on the same traffic, whatever the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSwitch:
    """A switch that was made."""

    at_s: float
    """Unix time."""
    before: Launch
    after: Launch
    profile: WorkloadProfile | None = None
    """The traffic that it was made for; None: it was made by hand."""


def as_baseline(launch: Launch) -> Baseline:
    """A launch as what runs today, its load left open."""
    return Baseline(
        plan=launch.plan,
        max_num_batched_tokens=launch.max_num_batched_tokens,
        weight_dtype=launch.weight_dtype,
        kv_dtype=launch.kv_dtype,
        decode_max_num_seqs=launch.decode_max_num_seqs,
        max_local_prefill_tokens=launch.max_local_prefill_tokens or (0 if is_pooled(launch.plan) else None),
        engine_options=launch.engine_options,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a decision rests on. Values are rates of whatever is wanted, in one unit for both plans.

    `retune` takes requests/s served within the limits; a plan that breaks them is worth less, down to nothing.
    """

    now_s: float
    """Unix time."""
    refusal: str | None = None
    """Why the window cannot be judged; None: it can."""
    changed: bool
    """Whether traffic drifted or the calibration is new since the current plan was chosen."""
    current: Launch | None = None
    """None: it cannot be launched, or it was not looked at."""
    current_keeps: bool
    """Whether the current plan keeps every limit on the window's traffic."""
    current_breaks: str = ""
    """The limit that it breaks, in words."""
    current_value_per_s: float = 0.0
    candidate: Launch | None = None
    """None: nothing was tuned, or nothing can be launched."""
    candidate_keeps: bool = False
    candidate_value_per_s: float = 0.0
    p_better: float = 0.5
    """Probability that the candidate is better than the current plan."""
    switch_duration_s: float = 0.0
    """From the first replica that drains to the last that serves."""
    switch_loss: float = 0.0
    """What is lost meanwhile, in the values' unit times seconds."""
    earlier: str = ""
    """In words: traffic that came before and counts beside the window's; empty: the window's alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, the rule that decided, and why in one sentence."""

    decision: str
    """`keep`, `switch` or `refuse`."""
    rule: str
    reason: str
    net_gain: float | None = None
    """Gain over the horizon less the cost of the switch, in the values' unit times seconds; None: not computed."""
    net_gain_frac: float | None = None
    """The same over what the current plan does in the horizon; None where it does nothing or was not computed."""
    payback_s: float | None = None
    """From the start of the switch until the gain has paid for it; None: never, or not computed."""


def decide(inputs: Inputs, policy: RetunePolicy, history: Sequence[PastSwitch]) -> Decision:
    """Keep, switch or refuse.

    `history` is in any order; switches later than `now` count as made just now.
    """
    settled = _settled(inputs, policy, history)
    if settled is not None:
        return settled
    gain = gain_over(
        current_per_s=inputs.current_value_per_s,
        candidate_per_s=inputs.candidate_value_per_s,
        horizon_s=policy.horizon_s,
        duration_s=inputs.switch_duration_s,
        loss=inputs.switch_loss,
    )
    back = _is_back(inputs, policy, history)
    need = policy.min_gain_frac * (policy.switch_back_factor if back else 1.0)
    over = f"{policy.horizon_s / 3600:g} h"
    share = "all of it" if gain.net_frac is None else f"{gain.net_frac:+.1%}"
    figures = {"net_gain": gain.net, "net_gain_frac": gain.net_frac, "payback_s": gain.payback_s}

    def decision(what: str, rule: str, reason: str) -> Decision:
        return Decision(decision=what, rule=rule, reason=reason, **figures)

    if gain.net <= 0.0 and not (inputs.candidate_keeps or inputs.current_keeps):
        return decision(
            KEEP, "nothing_feasible", "no plan keeps every limit on this traffic, and none is worth a switch"
        )
    if gain.per_s <= 0.0:
        return decision(KEEP, "no_gain", "the candidate serves no more within the limits than the current plan does")
    if gain.net <= 0.0:
        return decision(KEEP, "switch_costs_more", f"over {over} the switch costs more than it gains")
    if inputs.p_better < policy.min_p_better:
        return decision(
            KEEP,
            "not_sure",
            f"the candidate is better with probability {probability(inputs.p_better)}, below {policy.min_p_better:.0%}",
        )
    if gain.net < need * gain.reference:
        rule = "hysteresis" if back else "gain_too_small"
        extra = f", and this would be a switch back (x {policy.switch_back_factor:g})" if back else ""
        return decision(KEEP, rule, f"the net gain over {over} is {share}, below the {need:.1%} that is asked{extra}")
    if not inputs.current_keeps:
        broken = inputs.current_breaks or "a limit"
        reason = out_of_limits_words(broken, inputs.p_better, candidate_keeps=inputs.candidate_keeps)
        return decision(SWITCH, LIMIT_BROKEN, f"{reason}{inputs.earlier}")
    reason = f"net gain {share} over {over}, P(better) {probability(inputs.p_better)}{inputs.earlier}"
    return decision(SWITCH, "gain", reason)


def _settled(inputs: Inputs, policy: RetunePolicy, history: Sequence[PastSwitch]) -> Decision | None:
    """What is decided before any arithmetic."""
    if inputs.refusal is not None:
        return Decision(decision=REFUSE, rule="input", reason=inputs.refusal)
    if not inputs.changed:
        return _keep("no_drift", "no drift of the traffic and no new calibration since the current plan was chosen")
    if inputs.candidate is None:
        return _keep("no_candidate", "no other plan can be launched")
    if inputs.candidate == inputs.current:
        return _keep("same_plan", f"the current plan is the best for this traffic as well{inputs.earlier}")
    if not inputs.candidate_keeps and inputs.current_keeps:
        return _keep("candidate_breaks_limit", "the candidate breaks a limit that the current plan keeps")
    ages = [max(inputs.now_s - past.at_s, 0.0) for past in history]
    today = sum(age < DAY_S for age in ages)
    if today >= policy.max_switches_per_day:
        return _keep("max_switches", f"{today} switches within 24 h, at most {policy.max_switches_per_day} are allowed")
    since = min(ages, default=inf)
    if since < policy.cooldown_s and inputs.current_keeps:
        return _keep(
            "cooldown", f"the last switch was {since / 60:.0f} min ago, cooldown {policy.cooldown_s / 60:.0f} min"
        )
    return None


def _keep(rule: str, reason: str) -> Decision:
    return Decision(decision=KEEP, rule=rule, reason=reason)


def _is_back(inputs: Inputs, policy: RetunePolicy, history: Sequence[PastSwitch]) -> bool:
    """Whether the candidate's layout was left within the horizon, whatever settings it had."""
    plan = None if inputs.candidate is None else inputs.candidate.plan
    return any(past.before.plan == plan and inputs.now_s - past.at_s < policy.horizon_s for past in history)
