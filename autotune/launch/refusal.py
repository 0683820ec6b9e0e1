"""Why launch files of a plan cannot be written, without writing them."""

from __future__ import annotations

from collections.abc import Callable

from autotune.engines import ENGINES
from autotune.launch.export import make_export
from autotune.launch.service import NOTHING_ASKED
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.errors import InputError

Refusal = Callable[[PlanResult], str]
"""Why launch files of a plan cannot be written; empty: they can."""


def usual_target(plan: PlanResult) -> str:
    """The target that writes all of a plan: its engine, or llm-d's set where its own front sends every prompt to the
    prefill pool and the plan's does not."""
    local = plan.pools is not None and plan.pools.local_frac > 0.0
    return "disaggregatedset" if local and ENGINES[plan.engine].decode_pool_prefills == "all" else plan.engine


def export_refusal(study: Study, plan: PlanResult) -> str:
    """What `autotune export` would say against a plan whatever the target; empty: it writes the servers' files.

    A model without a name that can be loaded is not the plan's fault and is not said here.
    """
    try:
        if plan.pools is None:
            make_export(study, plan, first_node_alone=True)
        else:
            from autotune.launch.pools.make import make_pool_launch

            make_pool_launch(study, plan, asked=NOTHING_ASKED, assumptions=(), usual_version=None)
    except InputError as error:
        said = [problem.message for problem in error.problems if problem.path not in ("--model", "$.model")]
        return "; ".join(said)
    return ""


def refusals(study: Study) -> Refusal:
    """`export_refusal` of a study's plans that is worked out once for each: it takes as long as scoring the plan."""
    known: dict[str, str] = {}

    def refusal(plan: PlanResult) -> str:
        if plan.key not in known:
            known[plan.key] = export_refusal(study, plan)
        return known[plan.key]

    return refusal
