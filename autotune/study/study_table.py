"""The study file as a whole: its tables, how it is read, and its JSON Schema. Rules between fields are in `rules`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter

from autotune.engines import ANY
from autotune.study import field_types as ft
from autotune.study.division import DivisionTable, ModelShare
from autotune.study.field_types import EngineOrAny
from autotune.study.operation import RetunePolicy, Switch
from autotune.study.resilience import Resilience
from autotune.study.sections import Baseline, Constraints, EngineOptions, ObjectiveTable, SearchTable
from autotune.study.wider_search import Disaggregation, OtherGpusTable, Speculative
from autotune.study.workload import WorkloadTable
from costmodel.hardware.catalog import GpuTable

Price = Annotated[float, Field(strict=True, gt=0, le=1e6)]
Sentence = Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTable:
    """The GPUs that a plan has to use, all of one type."""

    __pydantic_config__ = ft.TABLE
    gpus: ft.Gpus = ft.entry("GPUs that every plan uses exactly, count")
    gpu: ft.NameOrTable = ft.entry(
        "name of a catalog GPU (`autotune catalog`), or a table with the catalog's keys; `base` in the table names a "
        "catalog GPU whose figures it changes"
    )
    gpus_per_node: ft.NodeGpus | None = ft.entry("GPUs of one host, count; default: the GPU's", None)
    price_per_gpu_hour: ft.Positive | None = ft.entry("US dollars per GPU and hour; default: the GPU's", None)
    also: tuple[OtherGpusTable, ...] = ft.entry(
        "GPUs of other types in the same cluster, for the pools of disaggregated plans", (), max_length=16
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTable:
    """A study file."""

    __pydantic_config__ = ft.TABLE
    name: str | None = ft.entry(
        "what the study is called in tables and in the storage; default: the file's name",
        None,
        min_length=1,
        max_length=120,
        pattern=r"^[^\x00-\x1f\x7f-\x9f/\\]+$",
    )
    engine: EngineOrAny = ft.entry("serving engine; any: plans of all of them compete", ANY)
    engine_version: str | None = ft.entry(
        "version of the engine; default: the one modelled", None, min_length=1, max_length=64
    )
    model: ft.NameOrTable = ft.entry(
        "name of a catalog model (`autotune catalog`), path of a config.json relative to the study file or of the "
        "folder it lies in, or a table with the content of a config.json"
    )
    approximate: bool = ft.entry(
        "take the nearest that there are formulas for where the model's config.json asks for something else; every "
        "result says what was taken",
        False,
    )
    cluster: ClusterTable = ft.entry("the hardware")
    workload: WorkloadTable = ft.entry("the traffic")
    constraints: Constraints = ft.entry("limits of a plan; default: none", Constraints())
    objective: ObjectiveTable = ft.entry("what is best", ObjectiveTable())
    search: SearchTable = ft.entry("what may be varied", SearchTable())
    baseline: Baseline | None = ft.entry("the plan in production; default: none", None)
    engine_options: EngineOptions = ft.entry("how engines are started", EngineOptions())
    disaggregation: Disaggregation = ft.entry(
        "pools of disaggregated plans and the transfer between them", Disaggregation()
    )
    speculative: Speculative | None = ft.entry("speculative decoding; default: none", None)
    prices: Mapping[str, Price] = ft.entry(
        "US dollars per GPU and hour by catalog name; default: the catalog's, if it has one", {}, max_length=64
    )
    switch: Switch = ft.entry("what putting another plan into production takes", Switch())
    retune: RetunePolicy = ft.entry("when another plan is worth a switch", RetunePolicy())
    resilience: Resilience = ft.entry("what has to be survived, and how often things break", Resilience())
    assumptions: tuple[Sentence, ...] = ft.entry(
        "what the author of the file filled in; printed with the result", (), max_length=100
    )
    calibration: str | None = ft.entry(
        "path of a calibration profile relative to the study file", None, min_length=1, max_length=4096
    )


@lru_cache(maxsize=1)
def study_adapter() -> TypeAdapter[StudyTable]:
    """What reads a document as a study; made when one is read first."""
    return TypeAdapter(StudyTable)


@lru_cache(maxsize=64)
def file_fields(table: type) -> Mapping[str, Any]:
    """Annotation of every field of a table by its name in the file."""
    hints = get_type_hints(table, include_extras=True)
    return {ft.key_of(f): hints[f.name] for f in fields(table)}


def tables_in(annotation: Any) -> list[type]:
    """Tables that an annotation holds, at any depth of unions and `Annotated`."""
    if isinstance(annotation, type) and hasattr(annotation, "__pydantic_config__"):
        return [annotation]
    return [t for arm in getattr(annotation, "__args__", ()) for t in tables_in(arm)]


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
