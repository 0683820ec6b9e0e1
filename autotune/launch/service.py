"""From a study and one of its plans to the value that an engine's module launches."""

from __future__ import annotations

from autotune.launch.limits import scored_exchange, start_limits
from autotune.launch.options import OptionList
from autotune.launch.plan import BenchLoad, Service
from autotune.launch.quoting import check_image, check_launch_text
from autotune.study import Study, cluster_of
from autotune.tuning import PlanResult
from costmodel.errors import InputError


def make_service(
    study: Study,
    plan: PlanResult,
    options: OptionList,
    *,
    model: str | None = None,
    hybrid_lb: bool = False,
    image: str | None = None,
    version: str | None = None,
) -> Service:
    """Everything that the plan's engine has to be told.

    Args:
        study: from `load_study`.
        plan: scored under it; its engine is that of `options`.
        options: of the engine version to launch.
        model: what to load: a Hugging Face name or a path on the nodes. None: the study's model by its name.
        hybrid_lb: as `Service.hybrid_lb`.
        image: as `Service.image`.
        version: of the engine that is launched, where `options` are those of an older one.

    Raises:
        InputError: the model's name or the study's cannot be an argument, or the plan cannot be started
            (`start_limits`).
    """
    if plan.pools is not None:
        raise InputError.single(
            "--plan", f"{plan.plan} is disaggregated: launch files are written for plans of one kind of replica"
        )
    said = []
    if model is None:
        said.append(f"model to load not given: {study.arch.name!r}, the name of the study's model")
    named = check_launch_text("--model" if model is not None else "$.model", model or study.arch.name)
    limits = start_limits(study, plan)
    return Service(
        name=study.name,
        engine=plan.engine,
        version=version or options.version,
        arch=study.arch,
        model=named,
        model_given=model is not None,
        cluster=cluster_of(study, plan.gpu, plan.layout.gpus),
        layout=plan.layout,
        knobs=plan.knobs,
        plan=plan.plan,
        limits=limits,
        load=bench_load(study, plan),
        exchange=scored_exchange(study, plan),
        cuda_graphs=study.engine_options.cuda_graphs,
        hybrid_lb=hybrid_lb,
        image=None if image is None else check_image(image),
        assumptions=(*said, *limits.assumptions),
    )


def bench_load(study: Study, plan: PlanResult) -> BenchLoad:
    """The study's workload at the point at which the plan was scored, with what is predicted there."""
    workload, metrics = study.workload, plan.metrics
    return BenchLoad(
        isl=(workload.isl.min, workload.isl.max),
        osl=(workload.osl.min, workload.osl.max),
        concurrency=plan.knobs.concurrency,
        request_rate_per_s=workload.request_rate_per_s,
        prefix_hit_frac=workload.prefix_cache_hit_frac,
        requests_per_s=metrics["requests_per_s"],
        ttft_s=metrics["ttft_s"],
        tpot_s=metrics["tpot_s"],
        output_tokens_per_s=metrics["output_tokens_per_s"],
    )
