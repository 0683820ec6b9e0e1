"""Study files of several models on one cluster: `[[models]]`, each with what it has of its own.

Every key of a study may stand in the file itself, for all models, and in a model, for that model alone: a table of a
model takes the place of the file's table of that name. The cluster is everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from autotune.study import Study
from autotune.study.division import DivisionTable, ModelShare
from autotune.study.read_and_override import read_document, read_overridden
from autotune.study.validation_messages import problems_of
from autotune.traffic.load import study_at
from costmodel.errors import InputError, Problem

MOST_STATES = 5000
"""Ways to hand out units of all GPU types together; the program's work is their square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuType:
    """GPUs of one type in the cluster."""

    name: str
    units: int
    """Whole ones; GPUs that fill none are not handed out."""
    unit_gpus: int
    price_per_hour: float | None
    """US dollars per GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedModel:
    """One model of a cluster."""

    share: ModelShare
    studies: tuple[Study, ...]
    """One for each GPU type: the model on all GPUs of it."""

    @property
    def rate_per_s(self) -> float:
        """Requests per second that come while it is awake."""
        rate = self.studies[0].workload.request_rate_per_s
        return rate if rate is not None else inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStudy:
    """Several models on one cluster."""

    name: str
    unit: str
    types: tuple[GpuType, ...]
    """The cluster's own type first."""
    models: tuple[SharedModel, ...]


def load_models_study(path: Path | str, overrides: Sequence[str] = ()) -> ClusterStudy:
    """Read a study file with `[[models]]`.

    `overrides`: `a.b.c=VALUE` on what stands in the file for all models, `division` included.

    Raises:
        InputError: every problem of the file and of each model, with its path.
    """
    file = Path(path)
    document = read_document(file)
    entries = document.pop("models", None)
    return read_overridden(
        document, overrides, lambda changed: _cluster_study(changed, entries, file), more={"division": DivisionTable}
    )


def _cluster_study(changed: Mapping[str, Any], entries: Any, file: Path) -> ClusterStudy:
    document = {key: value for key, value in changed.items() if key != "division"}
    if not isinstance(entries, list) or not entries or not all(isinstance(e, Mapping) for e in entries):
        raise InputError.single("$.models", "must be a list of tables, one [[models]] for each model")
    problems: list[Problem] = []
    table = _read(DivisionTable, changed.get("division", {}), "$.division", problems)
    shares = [_read(ModelShare, _own(e), f"$.models[{i}]", problems) for i, e in enumerate(entries)]
    clusters = _clusters(document)
    loaded: list[list[Study]] = []
    for i, entry in enumerate(entries):
        found = []
        for cluster in clusters:
            try:
                found.append(study_at(_single(document, entry, cluster), file))
            except InputError as error:
                problems += _placed(error, i, entry)
                break
        loaded.append(found)
    problems += _needed(shares, loaded)
    names = [share.name for share in shares if share is not None]
    problems += [
        Problem(path=f"$.models[{i}].name", message=f"must be another than that of an earlier model, got {name!r}")
        for i, name in enumerate(names)
        if name in names[:i]
    ]
    if problems or table is None:
        raise InputError(dict.fromkeys(problems))
    types = tuple(_type(study, table.unit) for study in loaded[0])
    models = tuple(
        SharedModel(share=share, studies=tuple(found))
        for share, found in zip(shares, loaded, strict=True)
        if share is not None
    )
    problems = _sizes(models, types)
    if problems:
        raise InputError(problems)
    return ClusterStudy(name=str(document.get("name", file.stem)), unit=table.unit, types=types, models=models)


@lru_cache(maxsize=2)
def _adapter(table: type) -> TypeAdapter[Any]:
    return TypeAdapter(table)


def _read(table: type, content: Any, path: str, problems: list[Problem]) -> Any:
    try:
        return _adapter(table).validate_python(content)
    except ValidationError as error:
        problems += [
            Problem(path=path + p.path.removeprefix("$"), message=p.message) for p in problems_of(error, table)
        ]
        return None


def _own(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a model that no study has."""
    names = {field.name for field in fields(ModelShare)}
    return {key: value for key, value in entry.items() if key in names}


def _single(document: Mapping[str, Any], entry: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, Any]:
    """The study of one model alone on the GPUs of one type."""
    own = {key: value for key, value in entry.items() if key not in _own(entry)}
    name = {"name": entry["name"]} if isinstance(entry.get("name"), str) else {}
    return {**document, **own, **name, "cluster": cluster}


def _clusters(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cluster's own GPUs, and those of each other type, as clusters of one type."""
    cluster = document.get("cluster")
    if not isinstance(cluster, Mapping):
        return [{}]
    others = cluster.get("also", [])
    own = {key: value for key, value in cluster.items() if key != "also"}
    return [own, *(other for other in others if isinstance(other, Mapping))]


def _placed(error: InputError, number: int, entry: Mapping[str, Any]) -> list[Problem]:
    """Problems of a model's study, at the model where the key is its own and in the file where it is everybody's."""

    def place(problem: Problem) -> Problem:
        key = problem.path.removeprefix("$.").split(".")[0].split("[")[0]
        at = f"$.models[{number}]"
        everybodys = key not in entry and key not in ("model", "workload", "constraints")
        return problem if everybodys else Problem(path=problem.path.replace("$", at, 1), message=problem.message)

    return [place(problem) for problem in error.problems]


def _needed(shares: Sequence[ModelShare | None], loaded: Sequence[Sequence[Study]]) -> list[Problem]:
    """What a division rests on: loads, and a present division that all models have or none."""
    problems = [
        Problem(
            path=f"$.models[{i}].workload.request_rate_per_s",
            message="is required: what a model's GPUs are worth is how much of its load they serve",
        )
        for i, found in enumerate(loaded)
        if found and found[0].workload.request_rate_per_s is None
    ]
    given = [share is not None and share.gpus is not None for share in shares]
    if any(given) and not all(given):
        problems += [
            Problem(path=f"$.models[{i}].gpus", message="is required where other models say what they have today")
            for i, there in enumerate(given)
            if not there
        ]
    return problems


def _type(study: Study, unit: str) -> GpuType:
    cluster = study.cluster
    each = {"node": cluster.gpus_per_node, "domain": min(cluster.domain_gpus, cluster.gpus), "gpu": 1}[unit]
    return GpuType(
        name=cluster.gpu.name, units=cluster.gpus // each, unit_gpus=each, price_per_hour=cluster.gpu.price_per_hour
    )


def _sizes(models: Sequence[SharedModel], types: Sequence[GpuType]) -> list[Problem]:
    problems = []
    states = 1
    for kind in types:
        states *= kind.units + 2
    if states > MOST_STATES:
        message = f"must leave at most {MOST_STATES:,} ways to hand out units, got {states:,}: larger units make fewer"
        problems.append(Problem(path="$.division.unit", message=message))
    own = types[0]
    known = {kind.name for kind in types[1:]}
    total = 0
    for i, model in enumerate(models):
        total += model.share.gpus or 0
        strange = [name for name in model.share.also_gpus if name not in known]
        problems += [
            Problem(
                path=f"$.models[{i}].also_gpus.{name}", message="is no other type of the cluster ([[cluster.also]])"
            )
            for name in strange
        ]
    if total > own.units * own.unit_gpus:
        message = f"must not be more than the cluster has, {own.units * own.unit_gpus}, got {total} in all"
        problems.append(Problem(path="$.models", message=f"gpus {message}"))
    if sum(model.share.min_gpus for model in models) > own.units * own.unit_gpus:
        problems.append(Problem(path="$.models", message="min_gpus must fit on the cluster together"))
    return problems
