"""JSON Schema of the study file, for editors and for `autotune schema`."""

from __future__ import annotations

from typing import Any

from autotune.study.study_table import study_adapter
from costmodel.hardware.catalog import GpuTable


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a study file, a description with the unit on every field."""
    schema = study_adapter().json_schema()
    gpu = GpuTable.model_json_schema(ref_template="#/$defs/{model}")
    schema["$defs"].update(gpu.pop("$defs", {}))
    gpu["properties"]["base"] = {
        "type": "string",
        "description": "catalog GPU whose figures this table changes; nothing else is required then",
    }
    gpu.pop("required", None)
    for name, field in gpu["properties"].items():
        field.setdefault("description", name.replace("_us", ", microseconds").replace("_", " "))
    schema["$defs"]["GpuTable"] = gpu
    workload = schema["$defs"]["WorkloadTable"]
    workload["anyOf"] = [{"required": workload.pop("required")}, {"required": ["traffic"]}]
    arms = schema["$defs"]["ClusterTable"]["properties"]["gpu"]["oneOf"]
    arms[:] = [a if a.get("type") != "object" else {"$ref": "#/$defs/GpuTable"} for a in arms]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "autotune study"}
