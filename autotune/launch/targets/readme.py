"""The README of an export: what starts where, in which order, health, a measurement, and how to roll it out.

Its words stand in `autotune/launch/templates`, a template for each target around the same sections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.service import BenchLoad, Service
from autotune.launch.bench import ROUNDS
from autotune.launch.document import changes
from autotune.launch.plan import LaunchPlan
from autotune.launch.targets.container import mounted_model
from autotune.launch.targets.kubernetes_pod import CACHE_ON_NODE
from autotune.launch.targets.scripts import reached, script_command
from autotune.launch.template import filled


def readme(plan: LaunchPlan, *, current: Service | None, template: str, words: Mapping[str, Any]) -> str:
    """The README.

    `current` is what runs now (None: not known), for the way from there; `words` are what only this template asks for.
    """
    bench, load = script_command(plan), plan.service.load
    values = {
        "plan": plan,
        "service": plan.service,
        "layout": plan.service.layout,
        "limits": plan.service.limits,
        "load": load,
        "engine": plan.engine,
        "options_version": plan.engine.choose_version(plan.service.version)[0].version,
        "size": plan.service.layout.pp * plan.service.layout.width,
        "result": plan.engine.bench_result,
        "reached": reached(plan),
        "begins_at_once": abs(load.ttft_steady_s / load.ttft_s - 1.0) > 0.02,
        "assumptions": tuple(dict.fromkeys((*plan.assumptions, *bench.assumptions))),
        "where_model": where_model(plan.service),
        "nodes": len(plan.replicas[0].nodes),
        **_run(load),
        **_from(current, plan.service),
    }
    return filled(f"{template}.md", values | dict(words))


def where_model(service: Service) -> str:
    """Where containers find the model."""
    if mounted_model(service) is not None:
        return "The model's folder has to be there on every node; containers get it read-only, at the same path."
    if service.model.startswith("/"):
        return (
            "The model is a path, which containers do not see by themselves: mount it at that path, or export again "
            "with `--model` naming it."
        )
    return (
        f"Each node loads the model from the Hugging Face hub once, into `{CACHE_ON_NODE}`: have room there, and fill "
        "it before if loading takes long."
    )


def _run(load: BenchLoad) -> dict[str, str]:
    """What drives the benchmark, and how long it takes."""
    if load.request_rate_per_s is not None:
        return {"drive": f"{load.request_rate_per_s:g} requests per second", "duration": "5 minutes"}
    minutes = max(ROUNDS * load.concurrency / load.requests_per_s / 60.0, 1.0)
    return {"drive": f"{load.concurrency:,} requests in flight", "duration": f"about {minutes:.0f} minutes"}


def _from(current: Service | None, service: Service) -> dict[str, Any]:
    """The way from what runs now, replica by replica: how many old ones make room for how many new ones."""
    if current is None:
        return {"current": None}
    old, new = (s.layout.pp * s.layout.width for s in (current, service))
    down = max(-(-new // old), 1)
    return {
        "current": current,
        "current_engine": ENGINES[current.engine],
        "changes": changes(current, service),
        "old_size": old,
        "down": down,
        "up": max(down * old // new, 1),
    }
