"""`plan.json`: what was exported, so that it can be read back, compared and rolled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autotune.engines.service import Knobs, Service
from autotune.launch.files import WRITTEN_BY
from autotune.launch.plan import LaunchPlan
from costmodel.errors import InputError, Problem
from costmodel.plan.layout import LAYOUT_AXES, Layout

FORMAT = 1
_STARTED_WITH = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_room_bytes",
    "kv_needed_bytes",
)


def plan_document(plan: LaunchPlan, *, target: str) -> dict[str, Any]:
    """The content of `plan.json`."""
    service = plan.service
    return {
        "written_by": WRITTEN_BY,
        "format": FORMAT,
        "target": target,
        "study": service.name,
        "model": service.model,
        "engine": service.engine,
        "engine_version": service.version,
        "plan": service.plan,
        "layout": layout_values(service.layout),
        "knobs": asdict(service.knobs),
        "started_with": {name: getattr(service.limits, name) for name in _STARTED_WITH}
        | {"kv_margin_frac": service.limits.margin_frac},
        "load": asdict(service.load),
        "nodes": list(plan.nodes),
        "gpus_per_node": plan.gpus_per_node,
        "assumptions": list(plan.assumptions),
    }


def layout_values(layout: Layout) -> dict[str, Any]:
    """Every field of a layout; no stages where they are not known."""
    return {name: getattr(layout, name) for name in LAYOUT_AXES} | {"stage_layers": list(layout.stage_layers) or None}


def read_layout(document: Mapping[str, Any], path: str) -> Layout:
    """A layout from `layout_values`. Raises `InputError` with every field that is missing or no whole number."""
    table = document.get("layout")
    if not isinstance(table, Mapping):
        raise InputError.single(path, "must hold a layout")
    problems = []
    for name in LAYOUT_AXES:
        least = 0 if name == "redundant_experts" else 1
        if not _whole(table.get(name), least):
            problems.append(Problem(path=f"{path}: $.layout.{name}", message="must be a whole number, at least 1"))
    stages = table.get("stage_layers")
    if not isinstance(stages, list) or not stages or not all(_whole(s, 1) for s in stages):
        problems.append(Problem(path=f"{path}: $.layout.stage_layers", message="must list the layers of every stage"))
    if problems:
        raise InputError(problems)
    return Layout(**{name: table[name] for name in LAYOUT_AXES}, stage_layers=tuple(table["stage_layers"]))


def read_knobs(document: Mapping[str, Any], path: str) -> Knobs:
    """Knobs from a plan document. Raises `InputError` with every field that is missing or of a wrong kind."""
    table = document.get("knobs")
    if not isinstance(table, Mapping):
        raise InputError.single(path, "must hold the knobs")
    problems = [
        Problem(path=f"{path}: $.knobs.{name}", message="must be a whole number, at least 1")
        for name in ("concurrency", "max_num_batched_tokens", "max_num_seqs")
        if not _whole(table.get(name), 1)
    ]
    problems += [
        Problem(path=f"{path}: $.knobs.{name}", message="must be a dtype or null")
        for name in ("weight_dtype", "kv_dtype")
        if not isinstance(table.get(name), (str, type(None)))
    ]
    if problems:
        raise InputError(problems)
    return Knobs(
        concurrency=table["concurrency"],
        max_num_batched_tokens=table["max_num_batched_tokens"],
        max_num_seqs=table["max_num_seqs"],
        weight_dtype=table.get("weight_dtype"),
        kv_dtype=table.get("kv_dtype"),
    )


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def changes(before: Service, after: Service) -> list[tuple[str, str, str]]:
    """Name, old and new value of what differs between two services."""

    def rows(service: Service) -> dict[str, str]:
        limits = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization")
        return (
            {"engine": service.engine, "engine version": service.version, "model": service.model}
            | {name: str(getattr(service.layout, name)) for name in (*LAYOUT_AXES, "stage_layers")}
            | {name: str(getattr(service.limits, name)) for name in limits}
            | {name: getattr(service.knobs, name) or "checkpoint" for name in ("weight_dtype", "kv_dtype")}
        )

    old, new = rows(before), rows(after)
    return [(name, old[name], new[name]) for name in old if old[name] != new[name]]
