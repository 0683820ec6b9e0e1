"""How far the measurements reach: what of a plan no run behind the calibration has seen.

The serving runs that the calibration was fitted on are of one kind of replica, of one stage, on the GPUs of one node
and at most eight of them. What lies beyond is computed by the same formulas and was never held against a server, so
that no probability about it is surer than `SURE_BEYOND_REACH`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autotune.engines import ENGINES
from autotune.scoring.plan_result import PlanResult
from autotune.space.pool_plan import Pools
from autotune.study import Study, started_with
from costmodel.arch import stored_in
from costmodel.calibration.measured_cells import measured_apart, not_measured, own_key
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout

MOST_GPUS = 8
"""GPUs of the largest replica that was measured."""
SURE_BEYOND_REACH = 0.8
"""A comparison that rests on what was never measured is never called surer than this."""
KINDS: Mapping[str, str] = {
    "pools": "separate pools",
    "pipeline": "pipeline stages",
    "nodes": "several nodes",
    "wide": f"replicas of more than {MOST_GPUS} GPUs",
    "attention_dp": "attention DP",
    "context": "context parallelism",
    "spares": "redundant experts",
    "overlap": "two-batch overlap",
    "local": "prompts prefilled by the decode pool",
    "speculative": "speculative decoding",
    "eager": "servers without CUDA graphs",
    "options": "options that are not priced",
    "engine": "this engine",
    "gpu": "this GPU",
    "model": "this model",
}
"""What may be missing in the measurements -> its name in sentences."""
OF_STUDY = ("engine", "gpu", "model", "speculative", "eager")
"""Kinds that are the study's, whatever the plan."""


def unmeasured(study: Study, plan: PlanResult) -> tuple[str, ...]:
    """What of a plan no run has measured, as keys of `KINDS` in their order; empty: it lies within the measurements."""
    own = started_with(study, plan.own_options)
    asked = {
        "speculative": own.axes.speculative is not None,
        "eager": not own.engine_options.cuda_graphs,
        "options": plan.own_options is not None and bool(plan.own_options.not_priced),
    }
    found = {*(kind for kind, is_asked in asked.items() if is_asked), *_cell(study, plan)}
    if plan.pools is not None:
        found |= {"pools", *_of_pools(study, plan.pools, plan.engine)}
    else:
        found |= _of_layout(plan.layout, _cluster(study, plan.gpu), plan.engine)
    return tuple(kind for kind in KINDS if kind in found)


def apart(study: Study, *plans: PlanResult) -> str:
    """How what was measured of these plans' engine, GPU and model differs most from them: `measured_apart` of each."""
    found = {""}
    for plan in plans:
        gpu, arch = _cluster(study, plan.gpu).gpu, stored_in(study.arch, plan.knobs.weight_dtype)
        if own_key(plan.engine, gpu.name, arch) not in _own(study):
            found.add(measured_apart(arch, gpu, ENGINES[plan.engine].traits))
    return next(kind for kind in ("apart", "precision", "") if kind in found)


def bounded(probability: float, *plans: Iterable[str]) -> float:
    """A probability about plans, given what of each was not measured: at most `SURE_BEYOND_REACH` where any was."""
    if not any(plans):
        return probability
    return min(max(probability, 1.0 - SURE_BEYOND_REACH), SURE_BEYOND_REACH)


def _cell(study: Study, plan: PlanResult) -> set[str]:
    """What of engine, GPU and model was not measured, by the shipped runs or by the user's own."""
    traits = ENGINES[plan.engine].traits
    names = {plan.gpu} if plan.pools is None else {plan.pools.prefill.gpu, plan.pools.decode.gpu}
    arch, found = stored_in(study.arch, plan.knobs.weight_dtype), set[str]()
    for gpu in (_cluster(study, name).gpu for name in names):
        if own_key(plan.engine, gpu.name, arch) in _own(study):
            continue
        for said in not_measured(arch, gpu, traits):
            found.add("gpu" if said.startswith(gpu.name) else "engine" if said.startswith(traits.name) else "model")
    return found


def _own(study: Study) -> Mapping[str, object]:
    """The cells of the user's own profile, by `own_key`."""
    return {} if study.calibration is None else study.calibration.values()


def _cluster(study: Study, gpu: str | None) -> Cluster:
    """The study's cluster of a GPU type; None is its own."""
    others = {c.gpu.name: c for c in (*study.axes.gpu_types, *study.axes.other_gpus)}
    return others.get(gpu or "", study.cluster)


def _of_pools(study: Study, pools: Pools, engine: str) -> set[str]:
    sides = (pools.prefill, pools.decode)
    found = set().union(*(_of_layout(side.layout, _cluster(study, side.gpu), engine) for side in sides))
    return found | ({"local"} if pools.local_frac else set())


def _of_layout(layout: Layout, cluster: Cluster, engine: str) -> set[str]:
    size = layout.pp * layout.width
    found = {
        "pipeline": layout.pp > 1,
        "nodes": size > max(cluster.gpus_per_node, cluster.domain_gpus),
        "wide": MOST_GPUS < size <= max(cluster.gpus_per_node, cluster.domain_gpus),
        "attention_dp": layout.attn_dp > 1 and not ENGINES[engine].attention_dp_measured,
        "context": layout.attn_cp > 1 or layout.dcp > 1,
        "spares": layout.redundant_experts > 0,
        "overlap": layout.two_batch_overlap > 0,
    }
    return {kind for kind, beyond in found.items() if beyond}
