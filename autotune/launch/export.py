"""`export`: a plan of a study as launch files, or why they cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from autotune.engines import ENGINES, engines_of
from autotune.engines.service import Service
from autotune.launch.plan import LaunchPlan
from autotune.launch.replicas import launch_plan
from autotune.launch.service import NOTHING_ASKED, LaunchOptions, check_model, make_service
from autotune.space import format_plan
from autotune.study import Study, in_production
from autotune.tuning import BaselineResult, PlanResult, score_baseline, score_named, score_plan, tune
from autotune.tuning.answer_study import full_string
from costmodel.dtypes import KV_BYTES
from costmodel.errors import InputError

if TYPE_CHECKING:
    from autotune.launch.reading.import_plan import Imported
    from autotune.launch.targets.registry import Target


BEST = "best"
BASELINE = "baseline"
Refusal = Callable[[PlanResult], str]
"""Why launch files of a plan cannot be written; empty: they can."""


def choose_plan(study: Study, target: Target, text: str | None) -> tuple[PlanResult | None, tuple[str, ...]]:
    """The plan to export, and what had to be assumed; None where no plan of the target's engine keeps every limit.

    Raises:
        InputError: the study is about another engine, or the string has no meaning, or breaks a rule of the engine.
    """
    own = _of_target(study, target)
    if text in (None, BEST):
        ranked = tune(own).ranked
        if not ranked:
            return None, ()
        best = ranked[0]
        of_engine = f"the best of {len(ranked)} of {best.engine} that keep every limit"
        why = "the study's best" if target.engine is None else of_engine
        return best, (f"plan not given: {best.plan}, {why}",)
    plan, assumed = _scored(own, full_string(study, str(text), path="--plan"), "--plan", target.engine)
    if not target.takes(plan.engine):
        taken = " or ".join(target.engines)
        raise InputError.single("--plan", f"must be of the target's engine, {taken}, got {plan.plan} ({text})")
    assumptions = [f"--plan: {a}" for a in assumed]
    if not plan.feasible:
        worst = plan.violations[0]
        assumptions.append(f"--plan breaks {worst.code}: {worst.value:.4g} {worst.unit}, limit {worst.limit:.4g}")
    return plan, tuple(assumptions)


def best_plans(study: Study, target: Target) -> tuple[PlanResult, ...]:
    """Every plan of the target's engine that keeps every limit, best first.

    Raises:
        InputError: the study is about another engine.
    """
    return tune(_of_target(study, target)).ranked


def _of_target(study: Study, target: Target) -> Study:
    """The study about the target's engine alone."""
    if target.engine is not None and target.engine not in engines_of(study.engine):
        raise InputError.single(
            "--target",
            f"is {target.engine}, the study is about {study.engine}; change it with --set engine={target.engine}",
        )
    return study if target.engine is None else replace(study, engine=target.engine)


def _scored(study: Study, text: str, path: str, engine: str | None = None) -> tuple[PlanResult, tuple[str, ...]]:
    """A plan string, or `baseline`, scored under the study, and what its reading assumed."""
    if text == BASELINE:
        baseline = score_baseline(study, engine=engine)
        if baseline is None:
            raise InputError.single(path, "the study has no baseline")
        return _valid(baseline, path), baseline.resolution.assumed
    scored = score_plan(study, text, engine=engine, path=path)
    return _valid(scored, path), scored.resolution.assumed


def _valid(scored: BaselineResult, path: str) -> PlanResult:
    if scored.result is None:
        raise InputError.single(path, "; ".join(f"{v.rule}: {v.message}" for v in scored.resolution.violations))
    return scored.result


def make_export(
    study: Study,
    plan: PlanResult,
    *,
    asked: LaunchOptions = NOTHING_ASKED,
    assumptions: tuple[str, ...] = (),
    usual_version: str | None = None,
    first_node_alone: bool = False,
) -> LaunchPlan:
    """The processes of a plan of the study.

    Args:
        study: from `load_study`.
        plan: scored under it.
        asked: by the user; without a version the study's is taken, or the newest whose options are known.
        assumptions: made before.
        usual_version: of the engine where neither the user nor the study says one (`Target.versions`).
        first_node_alone: as of `launch_plan`.

    Raises:
        InputError: what the engine cannot express, by the name of the rule; no model to load (`check_model`).
    """
    check_model(study, asked)
    version = asked.version or (study.engine_version if study.engine == plan.engine else None)
    options, assumed = ENGINES[plan.engine].choose_version(version or usual_version)
    if version is None and usual_version is not None:
        assumed = (f"engine version not given: {plan.engine} {usual_version}", *assumed)
    service = make_service(study, plan, options, replace(asked, version=version or usual_version))
    service = replace(service, assumptions=(*assumptions, *assumed, *service.assumptions))
    return launch_plan(service, options, first_node_alone=first_node_alone)


def current_service(study: Study, text: str) -> Service:
    """What runs now, given as a plan string or `baseline`: with the best knobs, or those the baseline gives.

    Nothing is assumed of what runs; what would be of launching it is left out.

    Raises:
        InputError: the study has no baseline, or the string has no meaning or breaks a rule of its engine.
    """
    named = None if text == BASELINE else text
    found = score_named(study, named, path="--from", missing="the study has no baseline", production=True)
    plan = _valid(found, "--from")
    options, _ = ENGINES[plan.engine].choose_version(None)
    return replace(make_service(study, plan, options), assumptions=())


def imported_service(study: Study, imported: Imported) -> Service:
    """What an import understood, scored under the study, with the lengths and counts that it runs with.

    Its assumptions are those of reading what runs, not those of launching it.

    Raises:
        InputError: it has no reading on the study's GPUs, or breaks a rule of its engine.
    """
    knobs = imported.knobs
    plan, assumptions = all_servers(study, imported)
    scored = score_plan(
        in_production(study, imported.baseline())[0],
        plan,
        engine=imported.engine,
        batched_tokens=knobs.get("max_num_batched_tokens"),
        kv_dtype=knobs["kv_dtype"] if knobs.get("kv_dtype") in KV_BYTES else None,
        path="--from",
    )
    engine = ENGINES[imported.engine]
    options, _ = engine.choose_version(imported.engine_version)
    asked = LaunchOptions(model=imported.model, version=imported.engine_version)
    service = make_service(study, _valid(scored, "--from"), options, asked)
    given = {name: knobs.get(name) for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens")}
    limits = replace(service.limits, **{name: value for name, value in given.items() if value})
    filled = knobs.get("memory_fraction")
    if engine.memory_is_of_everything and isinstance(filled, float):
        limits = replace(limits, gpu_memory_utilization=filled)
    graphs = imported.started.cuda_graphs
    return replace(service, limits=limits, cuda_graphs=graphs, assumptions=assumptions)


def all_servers(study: Study, imported: Imported) -> tuple[str, tuple[str, ...]]:
    """The plan of as many servers as fill the study's GPUs, where what was read is one of them."""
    layout = imported.layout
    size = layout.pp * layout.width
    servers = study.cluster.gpus // size
    one = layout.replicas == 1 and imported.pools is None and bool(layout.stage_layers)
    if not one or servers < 2 or study.cluster.gpus % size:
        return imported.plan, ()
    assumption = f"what runs is one server of {size} GPUs; {servers} of them taken, which is all GPUs of the study"
    return format_plan(replace(layout, replicas=servers), imported.engine), (assumption,)


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
