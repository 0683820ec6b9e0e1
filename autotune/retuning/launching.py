"""A changed plan as the difference of the commands that start it."""

from __future__ import annotations

from difflib import unified_diff

from autotune.engines import ENGINES
from autotune.launch.quoting import shell_command, to_yaml
from autotune.launch.replicas import launch_plan
from autotune.launch.service import make_service
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.errors import InputError


def launch_difference(study: Study, current: PlanResult, candidate: PlanResult) -> tuple[str, ...]:
    """Unified difference of both plans' commands: of one replica's head, and how many replicas and workers there are.

    Where an engine's version cannot be told to launch a plan, the lines say so instead.
    """
    before, after = _commands(study, current), _commands(study, candidate)
    found = unified_diff(before, after, f"current: {current.plan}", f"candidate: {candidate.plan}", n=1, lineterm="")
    return tuple(line for line in found if not line.startswith("@@"))


def _commands(study: Study, plan: PlanResult) -> list[str]:
    try:
        options, _ = ENGINES[plan.engine].choose_version(study.engine_version)
        launched = launch_plan(make_service(study, plan, options), options)
    except InputError as error:
        return [f"# {plan.plan} cannot be written as commands: {p.message}" for p in error.problems]
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
