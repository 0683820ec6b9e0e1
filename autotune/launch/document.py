"""`plan.json`: what was exported, so that it can be read back, compared and rolled from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ValidationError

from autotune.engines.service import Knobs, Service
from autotune.launch.files import WRITTEN_BY
from autotune.launch.plan import LaunchPlan
from autotune.study.validation_messages import problems_of
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


class _Written(BaseModel):
    """What is read back of the document."""

    layout: Layout
    knobs: Knobs


def read_plan(document: Mapping[str, Any], path: str) -> tuple[Layout, Knobs]:
    """Layout and knobs of a plan document.

    Raises:
        InputError: every field that is missing, of a wrong kind or below 1.
    """
    try:
        text = json.dumps({name: document.get(name) for name in _Written.model_fields})
        read = _Written.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = problems_of(error, _Written)
        raise InputError(Problem(path=f"{path}: {p.path}", message=p.message) for p in problems) from error
    numbers = {"layout": asdict(read.layout) | {"stage_layers": min(read.layout.stage_layers, default=0)}}
    numbers["knobs"] = {name: value for name, value in asdict(read.knobs).items() if isinstance(value, int)}
    low = [
        Problem(path=f"{path}: $.{table}.{name}", message=f"must be at least {least}")
        for table, values in numbers.items()
        for name, value in values.items()
        if value < (least := 0 if name in ("redundant_experts", "two_batch_overlap") else 1)
    ]
    if low:
        raise InputError(low)
    return read.layout, read.knobs


def changes(before: Service, after: Service) -> list[tuple[str, str, str]]:
    """Name, old and new value of what differs between two services."""

    def rows(service: Service) -> dict[str, str]:
        limits = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization")
        return (
            {"engine": service.engine, "engine version": service.version, "model": service.model}
            | {name: str(getattr(service.layout, name)) for name in (*LAYOUT_AXES, "stage_layers")}
            | {name: str(getattr(service.limits, name)) for name in limits}
            | {name: getattr(service.knobs, name) or "checkpoint" for name in ("weight_dtype", "kv_dtype")}
            | {"cuda_graphs": str(service.cuda_graphs)}
        )

    old, new = rows(before), rows(after)
    return [(name, old[name], new[name]) for name in old if old[name] != new[name]]
