"""What was never measured of the plans that an answer is about, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.report.vocabulary.plan_names import same_run
from autotune.scoring.reach import KINDS, OF_STUDY, unmeasured
from autotune.study import Study
from autotune.tuning import PlanResult

WITHIN = "Measured: servers of this model, GPU and engine, of one stage on one node, are in the calibration."


def reach_line(study: Study, first: PlanResult | None, base: PlanResult | None) -> str:
    """`Never measured: pipeline stages, several nodes (in production).`"""
    if first is None:
        return WITHIN
    mine = unmeasured(study, first)
    other = base is not None and not same_run(first, base)
    theirs = unmeasured(study, base) if base is not None and other else ()
    whole = [_named(kind, study, first) for kind in KINDS if kind in OF_STUDY and kind in {*mine, *theirs}]
    parts = [_list(whole)] if whole else []
    own, its = ([kind for kind in kinds if kind not in OF_STUDY] for kinds in (mine, theirs))
    if own and own == its:
        parts.append(f"{_list(_names(own))} (both plans)")
    else:
        parts += [f"{_list(_names(own))} (the first plan)"] if own else []
        parts += [f"{_list(_names(its))} (in production)"] if its else []
    return f"Never measured: {'; '.join(parts)}." if parts else WITHIN


def reach_of_one(study: Study, plan: PlanResult) -> str:
    """The same of one plan: `Never measured: pipeline stages.`"""
    found = [_named(kind, study, plan) for kind in unmeasured(study, plan)]
    return f"Never measured: {_list(found)}." if found else WITHIN


def short_reach(study: Study, plan: PlanResult) -> str:
    """What fits a column: `yes`, or what was not measured."""
    short = {"nodes": "nodes", "pipeline": "stages", "pools": "pools", "attention_dp": "DP", "wide": "width"}
    found = [short.get(kind, kind) for kind in unmeasured(study, plan)]
    return f"no: {', '.join(found)}" if found else "yes"


def _named(kind: str, study: Study, plan: PlanResult) -> str:
    names = {"gpu": plan.gpu or study.cluster.gpu.name, "model": study.arch.name, "engine": plan.engine}
    return names.get(kind, KINDS[kind])


def _names(kinds: Sequence[str]) -> list[str]:
    return [KINDS[kind] for kind in kinds]


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)
