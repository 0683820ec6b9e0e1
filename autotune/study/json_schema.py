"""JSON Schema of the study file, for editors and for `autotune schema`."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from autotune.study.division import DivisionTable, ModelShare
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
    _add_models(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "autotune study"}


def _add_models(schema: dict[str, Any]) -> None:
    """The tables of a study of several models; a model may have every key of a study but the cluster as its own."""
    required = schema.pop("required")
    own = {key: {"$ref": f"#/properties/{key}"} for key in schema["properties"] if key not in ("name", "cluster")}
    for table in (ModelShare, DivisionTable):
        found = TypeAdapter(table).json_schema()
        schema["$defs"].update(found.pop("$defs", {}))
        schema["$defs"][table.__name__] = found
    share = schema["$defs"]["ModelShare"]
    del share["additionalProperties"]
    share["description"] = (
        "One model of several on a cluster (`autotune divide`). Every other key and table of a study but `cluster` may "
        "stand here too, for this model alone."
    )
    model = {"allOf": [{"$ref": "#/$defs/ModelShare"}, {"properties": own}], "unevaluatedProperties": False}
    schema["properties"]["models"] = {
        "type": "array",
        "items": model,
        "minItems": 1,
        "description": "several models on one cluster, each with what it has of its own",
    }
    schema["properties"]["division"] = {
        "$ref": "#/$defs/DivisionTable",
        "description": "how a cluster is divided among models",
    }
    schema["anyOf"] = [{"required": required}, {"required": ["models", "cluster"]}]
