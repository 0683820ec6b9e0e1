"""What was never measured of the plans that an answer is about, and which GPUs a plan leaves idle, a line each."""

from __future__ import annotations

from autotune.scoring.reach import KINDS, OF_STUDY, apart, unmeasured
from autotune.study import Study
from autotune.tuning import PlanResult

APART = {"": "", "apart": ", not of all three together", "precision": ", in another precision"}
"""How what was measured differs from a plan whose model, GPU and engine were -> what is said of it."""


def _within(study: Study, *plans: PlanResult) -> str:
    how = APART[apart(study, *plans)]
    return f"Measured: the calibration has one-node servers of this model, GPU and engine{how}."


def reach_line(
    study: Study, first: PlanResult | None, base: PlanResult | None, *, called: str = "the first plan"
) -> str:
    """`Never measured: several nodes; pipeline stages, attention DP (in production).`

    `called`: what `first` is called.
    """
    if first is None:
        return _within(study)
    mine = unmeasured(study, first)
    other = base is not None and not first.runs_as(base)
    theirs = unmeasured(study, base) if base is not None and other else ()
    found = [kind for kind in (*OF_STUDY, *(k for k in KINDS if k not in OF_STUDY)) if kind in {*mine, *theirs}]
    both = [kind for kind in found if kind in OF_STUDY or (kind in mine and (kind in theirs or not other))]
    said = ((both, ""), (mine, f" ({called})"), (theirs, " (in production)"))
    parts = []
    for kinds, whose in said:
        names = [_named(kind, study, first) for kind in kinds if kinds is both or kind not in both]
        parts += [", ".join(names) + whose] if names else []
    return f"Never measured: {'; '.join(parts)}." if parts else _within(study, first, *([] if base is None else [base]))


def reach_of_one(study: Study, plan: PlanResult) -> str:
    """The same of one plan: `Never measured: pipeline stages.`"""
    found = [_named(kind, study, plan) for kind in unmeasured(study, plan)]
    return f"Never measured: {', '.join(found)}." if found else _within(study, plan)


def idle_gpus(study: Study, plan: PlanResult) -> str:
    """`It leaves 16 x h100_sxm idle.`; empty where it uses the GPUs of every type that is there.

    Those of `search.gpu` are there instead of each other, those of `cluster.also` beside the cluster's own.
    """
    if not study.axes.other_gpus or study.axes.gpu_types:
        return ""
    pools, clusters = plan.pools, (study.cluster, *study.axes.other_gpus)
    used = {plan.gpu or study.cluster.gpu.name} if pools is None else {pools.prefill.gpu, pools.decode.gpu}
    idle = [f"{c.gpus:,} x {c.gpu.name}" for c in clusters if c.gpu.name not in used]
    return f"It leaves {' and '.join(idle)} idle." if idle else ""


def short_reach(study: Study, plan: PlanResult) -> str:
    """What fits a column: `yes`, `in part` where model, GPU and engine were but not so, or what was not measured."""
    short = {"nodes": "nodes", "pipeline": "stages", "pools": "pools", "attention_dp": "DP", "wide": "width"}
    found = [short.get(kind, kind) for kind in unmeasured(study, plan)]
    return f"no: {', '.join(found)}" if found else "in part" if apart(study, plan) else "yes"


def _named(kind: str, study: Study, plan: PlanResult) -> str:
    model = study.arch.name.rpartition("/")[2]
    names = {"gpu": plan.gpu or study.cluster.gpu.name, "model": model, "engine": plan.engine}
    return names.get(kind, KINDS[kind])
