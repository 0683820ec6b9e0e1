"""From a study and one of its plans to the value that an engine's module launches."""

from __future__ import annotations

from autotune.launch.limits import scored_exchange, start_limits
from autotune.launch.options import OptionList
from autotune.launch.plan import Service
from autotune.launch.quoting import check_launch_text
from autotune.study import Study
from autotune.tuning import PlanResult


def make_service(
    study: Study, plan: PlanResult, options: OptionList, *, model: str | None = None, hybrid_lb: bool = False
) -> Service:
    """Everything that the plan's engine has to be told.

    Args:
        study: from `load_study`.
        plan: scored under it; its engine is that of `options`.
        options: of the engine version to launch.
        model: what to load: a Hugging Face name or a path on the nodes. None: the study's model by its name.

        hybrid_lb: as `Service.hybrid_lb`.

    Raises:
        InputError: the model's name or the study's cannot be an argument, or the plan cannot be started
            (`start_limits`).
    """
    said = []
    if model is None:
        said.append(f"model to load not given: {study.arch.name!r}, the name of the study's model")
    named = check_launch_text("--model" if model is not None else "$.model", model or study.arch.name)
    limits = start_limits(study, plan)
    return Service(
        name=study.name,
        engine=plan.engine,
        version=options.version,
        arch=study.arch,
        model=named,
        model_given=model is not None,
        cluster=study.cluster,
        layout=plan.layout,
        knobs=plan.knobs,
        plan=plan.plan,
        limits=limits,
        exchange=scored_exchange(study, plan),
        cuda_graphs=study.engine_options.cuda_graphs,
        hybrid_lb=hybrid_lb,
        assumptions=(*said, *limits.assumptions),
    )
