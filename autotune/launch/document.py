"""`plan.json`: what was exported, so that it can be read back, compared and rolled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autotune.launch.files import WRITTEN_BY
from autotune.launch.plan import LaunchPlan, Service
from autotune.tuning import Knobs
from costmodel.errors import InputError, Problem
from costmodel.plan.layout import LAYOUT_AXES, Layout

FORMAT = 1


def plan_document(plan: LaunchPlan, *, target: str) -> dict[str, Any]:
    """The content of `plan.json`."""
    service = plan.service
    limits = service.limits
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
        "started_with": {
            "max_model_len": limits.max_model_len,
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "gpu_memory_utilization": limits.gpu_memory_utilization,
            "kv_room_bytes": limits.kv_room_bytes,
            "kv_needed_bytes": limits.kv_needed_bytes,
            "kv_margin_frac": limits.margin_frac,
        },
        "load": asdict(service.load),
        "nodes": list(plan.nodes),
        "gpus_per_node": plan.gpus_per_node,
        "assumptions": list(plan.assumptions),
    }


def layout_values(layout: Layout) -> dict[str, Any]:
    """Every field of a layout."""
    return {name: getattr(layout, name) for name in LAYOUT_AXES} | {"stage_layers": list(layout.stage_layers)}


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
    rows = [("engine", before.engine, after.engine), ("engine version", before.version, after.version)]
    rows.append(("model", before.model, after.model))
    rows += [
        (name, str(getattr(before.layout, name)), str(getattr(after.layout, name)))
        for name in (*LAYOUT_AXES, "stage_layers")
    ]
    rows += [
        (name, str(getattr(before.limits, name)), str(getattr(after.limits, name)))
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization")
    ]
    rows += [
        (name, str(getattr(before.knobs, name) or "checkpoint"), str(getattr(after.knobs, name) or "checkpoint"))
        for name in ("weight_dtype", "kv_dtype")
    ]
    return [row for row in rows if row[1] != row[2]]
