"""`export`: a plan of a study as launch files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.engines import ANY
from autotune.launch.engines.build import launch_plan
from autotune.launch.engines.options import choose_version
from autotune.launch.plan import LaunchPlan, Service
from autotune.launch.reading.import_plan import Imported
from autotune.launch.service import make_service
from autotune.launch.targets.registry import Target
from autotune.space import format_plan
from autotune.study import Study
from autotune.tuning import BaselineResult, PlanResult, score_baseline, score_plan, tune
from costmodel.dtypes import KV_BYTES
from costmodel.errors import InputError
from costmodel.plan.layout import LAYOUT_AXES, Layout

BEST = "best"
BASELINE = "baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is to be written."""

    plan: PlanResult
    launch: LaunchPlan
    current: Service | None


def choose_plan(study: Study, target: Target, text: str | None) -> tuple[PlanResult | None, tuple[str, ...]]:
    """The plan to export, and what had to be assumed; None where no plan of the target's engine keeps every limit.

    Raises:
        InputError: the study is about another engine, or the string has no meaning, or breaks a rule of the engine.
    """
    if target.engine is not None and study.engine not in (ANY, target.engine):
        raise InputError.single(
            "--target",
            f"is {target.engine}, the study is about {study.engine}; change it with --set engine={target.engine}",
        )
    own = study if target.engine is None else replace(study, engine=target.engine)
    if text in (None, BEST):
        ranked = tune(own).ranked
        if not ranked:
            return None, ()
        best = ranked[0]
        said = f"plan not given: {best.plan}, the best of {len(ranked)} of {best.engine} that keep every limit"
        return best, (said if target.engine else f"plan not given: {best.plan}, the study's best",)
    scored = (
        _baseline(own, "--plan", target.engine)
        if text == BASELINE
        else score_plan(own, text, engine=target.engine, path="--plan")
    )
    if scored.result is None:
        raise InputError.single("--plan", "; ".join(f"{v.rule}: {v.message}" for v in scored.resolution.violations))
    if target.engine not in (None, scored.result.engine):
        raise InputError.single(
            "--plan", f"must be of the target's engine, {target.engine}, got {scored.result.plan} ({text})"
        )
    said_too = tuple(f"--plan: {a}" for a in scored.resolution.assumed)
    if not scored.result.feasible:
        worst = scored.result.violations[0]
        broken = f"--plan breaks {worst.code}: {worst.value:.4g} {worst.unit}, limit {worst.limit:.4g}"
        said_too = (*said_too, broken)
    return scored.result, said_too


def _baseline(study: Study, path: str, engine: str | None = None) -> BaselineResult:
    scored = score_baseline(study, engine=engine)
    if scored is None:
        raise InputError.single(path, "the study has no baseline")
    return scored


def make_export(
    study: Study,
    plan: PlanResult,
    *,
    said: tuple[str, ...] = (),
    version: str | None = None,
    model: str | None = None,
    hybrid_lb: bool = False,
    image: str | None = None,
    current: Service | None = None,
    usual_version: str | None = None,
) -> Export:
    """The processes of a plan of the study.

    Args:
        study: from `load_study`.
        plan: scored under it.
        said: assumptions made before.
        version: of the engine; None: the study's, or the newest whose options are known.
        model: what to load, as `make_service`.
        hybrid_lb: as `Service.hybrid_lb`.
        image: as `Service.image`.
        current: what runs now.
        usual_version: of the engine where neither `version` nor the study says one (`Target.version`).

    Raises:
        InputError: what the engine cannot express, by the name of the rule.
    """
    asked = version or (study.engine_version if study.engine == plan.engine else None)
    options, assumed = choose_version(plan.engine, asked or usual_version)
    if asked is None and usual_version is not None:
        assumed = (f"engine version not given: {plan.engine} {usual_version}", *assumed)
    service = make_service(
        study, plan, options, model=model, hybrid_lb=hybrid_lb, image=image, version=asked or usual_version
    )
    service = replace(service, assumptions=(*said, *assumed, *service.assumptions))
    return Export(plan=plan, launch=launch_plan(service, options), current=current)


def current_service(study: Study, text: str) -> Service:
    """What runs now, given as a plan string or `baseline`: with the best knobs, or those the baseline gives.

    Raises:
        InputError: the study has no baseline, or the string has no meaning or breaks a rule of its engine.
    """
    scored = _baseline(study, "--from") if text == BASELINE else score_plan(study, text, path="--from")
    if scored.result is None:
        raise InputError.single("--from", "; ".join(f"{v.rule}: {v.message}" for v in scored.resolution.violations))
    options, _ = choose_version(scored.result.engine, None)
    return make_service(study, scored.result, options)


def imported_service(study: Study, imported: Imported) -> Service:
    """What an import understood, scored under the study, with the lengths and counts that it runs with.

    Raises:
        InputError: it has no reading on the study's GPUs, or breaks a rule of its engine.
    """
    knobs = imported.knobs
    plan, said = _all_servers(study, imported)
    scored = score_plan(
        study,
        plan,
        engine=imported.engine,
        batched_tokens=knobs.get("max_num_batched_tokens"),
        kv_dtype=knobs["kv_dtype"] if knobs.get("kv_dtype") in KV_BYTES else None,
        path="--from",
    )
    if scored.result is None:
        raise InputError.single("--from", "; ".join(f"{v.rule}: {v.message}" for v in scored.resolution.violations))
    options, _ = choose_version(imported.engine, imported.engine_version)
    service = make_service(study, scored.result, options, model=imported.model, version=imported.engine_version)
    limits = service.limits
    limits = replace(
        limits,
        max_model_len=knobs.get("max_model_len") or limits.max_model_len,
        max_num_seqs=knobs.get("max_num_seqs") or limits.max_num_seqs,
        max_num_batched_tokens=knobs.get("max_num_batched_tokens") or limits.max_num_batched_tokens,
    )
    filled = knobs.get("memory_fraction")
    if imported.engine == "vllm" and isinstance(filled, float):  # the others' fractions are of something else
        limits = replace(limits, gpu_memory_utilization=filled)
    return replace(service, limits=limits, assumptions=(*said, *service.assumptions))


def _all_servers(study: Study, imported: Imported) -> tuple[str, tuple[str, ...]]:
    """The plan of as many servers as fill the study's GPUs, where what was read is one of them."""
    layout = imported.layout
    size = layout["pp"] * layout["attn_tp"] * layout["attn_dp"] * layout["attn_cp"]
    servers = study.cluster.gpus // size
    stages = layout["stage_layers"]
    if layout["replicas"] != 1 or servers < 2 or study.cluster.gpus % size or stages is None:
        return imported.plan, ()
    axes = {name: layout[name] for name in LAYOUT_AXES} | {"replicas": servers}
    said = f"--from: it starts one server of {size} GPUs; {servers} of them taken, which is all GPUs of the study"
    return format_plan(Layout(**axes, stage_layers=tuple(stages)), imported.engine), (said,)
