"""From a study and one of its plans to the value that an engine's module launches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from autotune.engines import ENGINES
from autotune.engines.benchmark import shared_tokens
from autotune.engines.options import OptionList
from autotune.engines.service import BenchLoad, Service
from autotune.launch.limits import plan_rows, scored_exchange, start_limits
from autotune.launch.quoting import check_image, check_launch_text, check_name
from autotune.scoring.knob_grid import KnobGrid
from autotune.study import Study, cluster_of, on_cluster, started_with
from autotune.tuning import PlanResult
from costmodel.arch.catalog import find_model
from costmodel.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """What a user asks of a launch beside the plan."""

    version: str | None = None
    """Of the engine; None: that of the options."""
    model: str | None = None
    """What to load: a Hugging Face name or a path on the nodes. None: the study's model by its name."""
    hybrid_lb: bool = False
    image: str | None = None
    name: str | None = None
    """Of the objects in a cluster; None: the study's and a hash of what is started."""


NOTHING_ASKED = LaunchOptions()


def loads_by_name(study: Study) -> bool:
    """Whether an engine finds the weights of the study's model by its name."""
    found = find_model(study.arch.name)
    return found is not None and found.hub == study.arch.name


def check_model(study: Study, asked: LaunchOptions) -> None:
    """Raises `InputError` where nobody says what the engine loads: a model that the study holds as a config.json, or
    names as a variant of one of the catalog, has no name that an engine finds anything by.
    """
    if asked.model is not None or loads_by_name(study):
        return
    name = study.arch.name
    found = find_model(name)
    if found is None or "/" in name:
        whose = f"is a config.json of its own, {name!r:.100}, by which no engine finds weights"
    else:
        whose = f"is {name!r:.100}, which has the config of {found.catalog}, and its own name on the hub is not known"
    raise InputError.single(
        "--model",
        f"is required: the study's model {whose}; give its name on the Hugging Face hub or its folder on the nodes",
    )


def make_service(study: Study, plan: PlanResult, options: OptionList, asked: LaunchOptions = NOTHING_ASKED) -> Service:
    """Everything that the plan's engine has to be told; `options` are those of its version or an older one.

    Raises:
        InputError: the model's name or the study's cannot be an argument, or the plan cannot be started
            (`start_limits`).
    """
    if plan.pools is not None:
        raise InputError.single(
            "--plan",
            "one_kind_of_replica: launch files are written for replicas that prefill and decode, got a disaggregated "
            f"plan ({plan.plan}): name another, or leave those out with --set search.disaggregated=off",
        )
    study = on_cluster(study, cluster_of(study, plan.gpu, plan.layout.gpus))
    assumptions = _speculative(started_with(study, plan.own_options), plan.engine)
    if asked.model is None:
        assumptions.append(f"model to load not given: {study.arch.name!r}, the name of the study's model")
    named = check_launch_text("$.model" if asked.model is None else "--model", asked.model or study.arch.name)
    rows = plan_rows(study, plan)
    exchange = scored_exchange(rows, plan)
    limits = start_limits(rows, plan, exchange)
    return Service(
        name=study.name,
        engine=plan.engine,
        version=asked.version or options.version,
        arch=study.arch,
        model=named,
        model_given=asked.model is not None,
        cluster=study.cluster,
        layout=plan.layout,
        knobs=plan.knobs,
        plan=plan.plan,
        limits=limits,
        make_load=cache(partial(bench_load, rows, plan)),
        exchange=exchange,
        cuda_graphs=rows.study.engine_options.cuda_graphs,
        hybrid_lb=asked.hybrid_lb,
        image=None if asked.image is None else check_image(asked.image),
        instance=None if asked.name is None else check_name(asked.name),
        assumptions=(*assumptions, *limits.assumptions, *limits.of_sequences),
    )


def _speculative(study: Study, engine: str) -> list[str]:
    given = study.axes.speculative
    if given is None:
        return []
    option = ENGINES[engine].speculative_option
    scored = (
        f"scored with speculative decoding, {given.draft_tokens} tokens drafted a step: the study does not say by what"
    )
    return [f"{scored}, so that {option} is not written; add it, or the plan is slower than predicted"]


def scored_load(study: Study, plan: PlanResult) -> BenchLoad:
    """The study's workload at the point at which the plan was scored, with what it was scored by.

    Lengths are uniform with the mean of the study's, no shorter than what is shared of a prompt of mean length.
    """
    work, metrics = study.workload, plan.metrics
    shared = shared_tokens(work.isl.around_mean(), work.prefix_cache_hit_frac)
    return BenchLoad(
        isl=work.isl.around_mean(shared + 1),
        osl=work.osl.around_mean(),
        concurrency=plan.knobs.concurrency,
        request_rate_per_s=work.request_rate_per_s,
        prefix_hit_frac=work.prefix_cache_hit_frac,
        requests_per_s=metrics["requests_per_s"],
        ttft_s=metrics["ttft_s"],
        ttft_steady_s=metrics["ttft_s"],
        tpot_s=metrics["tpot_s"],
        output_tokens_per_s=metrics["output_tokens_per_s"],
    )


def bench_load(rows: KnobGrid, plan: PlanResult) -> BenchLoad:
    """The same with what is predicted for a benchmark: one of a closed loop begins with all its requests at once, one
    at a rate is what was scored.
    """
    from costmodel.measured.runs import BENCHMARK_WAVES  # of what is written alone, not of what may be

    study = rows.study
    scored = scored_load(study, plan)
    if scored.request_rate_per_s is not None:
        return scored
    fixed = ENGINES[plan.engine].same_lengths(scored.isl, scored.osl, scored.prefix_hit_frac)
    load = replace(
        rows.load(np.array([float(scored.concurrency)])),
        same_lengths=np.array([float(fixed)]),
        waves=np.array([BENCHMARK_WAVES]),
    )
    estimate = rows.batch.evaluate(load, arrivals=False, **rows.bounds())
    return replace(
        scored,
        requests_per_s=float(estimate.requests_per_s[0]),
        ttft_s=float(estimate.ttft_s[0]),
        tpot_s=float(estimate.tpot_s[0]),
        output_tokens_per_s=float(estimate.output_tokens_per_s[0]),
    )
