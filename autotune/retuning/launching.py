"""A changed plan as the difference of the commands that start it."""

from __future__ import annotations

from difflib import unified_diff

from autotune.engines import ENGINES
from autotune.launch.plan import LaunchPlan
from autotune.launch.pools.make import make_pool_launch
from autotune.launch.quoting import shell_command, to_yaml
from autotune.launch.replicas import launch_plan
from autotune.launch.service import LaunchOptions, make_service
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.errors import InputError


def launch_difference(study: Study, current: PlanResult, candidate: PlanResult) -> tuple[str, ...]:
    """Unified difference of both plans' commands: of one replica's head, and how many replicas and workers there are.

    Of a disaggregated plan these are the commands of either pool.

    Where an engine's version cannot be told to launch a plan, the lines say so instead.
    """
    before, after = _commands(study, current), _commands(study, candidate)
    found = unified_diff(before, after, f"current: {current.plan}", f"candidate: {candidate.plan}", n=1, lineterm="")
    return tuple(line for line in found if not line.startswith("@@"))


def _commands(study: Study, plan: PlanResult) -> list[str]:
    try:
        if plan.pools is not None:
            asked = LaunchOptions(model=study.arch.name)  # only a difference is shown: any name does
            both = make_pool_launch(study, plan, asked=asked, assumptions=(), usual_version=None)
            return [line for role, pool in both.pools.items() for line in (f"# {role} pool", *_of(pool))]
        options, _ = ENGINES[plan.engine].choose_version(study.engine_version)
        return _of(launch_plan(make_service(study, plan, options), options))
    except InputError as error:
        return [f"# {plan.plan} cannot be written as commands: {p.message}" for p in error.problems]


def _of(launched: LaunchPlan) -> list[str]:
    replica = launched.replicas[0]
    lines = [f"# replicas: {len(launched.replicas)}, each on {len(replica.nodes)} node(s)"]
    lines += shell_command(replica.head.argv).splitlines()
    if len(replica.processes) > 1:
        lines.append(
            f"# and {len(replica.processes) - 1} worker(s) beside this head; `autotune export` writes them all"
        )
    for name, content in launched.files.items():
        lines += [f"# {name}", *to_yaml(content).splitlines()]
    return lines
