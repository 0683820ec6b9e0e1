"""The processes of any engine's plan."""

from __future__ import annotations

from autotune.launch.engines import sglang, trtllm, vllm
from autotune.launch.engines.options import OptionList
from autotune.launch.plan import LaunchPlan, Service
from autotune.space import violations
from costmodel.errors import InputError, Problem

ENGINES = {"vllm": vllm.launch, "sglang": sglang.launch, "trtllm": trtllm.launch}


def launch_plan(service: Service, options: OptionList) -> LaunchPlan:
    """What starts on which node.

    Raises:
        InputError: every rule of the engine that the plan breaks, or the first thing in it that this version has no
            option for.
    """
    broken = violations(service.arch, service.engine, service.layout)
    if broken:
        raise InputError(Problem(path="plan", message=f"{v.rule}: {v.message}") for v in broken)
    return ENGINES[service.engine](service, options)
