"""From a study file to a `Study`: read, override, validate, resolve; every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from autotune.study import resolve
from autotune.study.engine_hardware import engine_problems
from autotune.study.question import Study
from autotune.study.read_and_override import read_document, read_overridden
from autotune.study.references import read_calibration, read_gpu, read_model
from autotune.study.rules import between_fields, fits_model
from autotune.study.study_table import StudyTable, study_adapter
from autotune.study.validation_messages import problems_of
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, load_gpu

T = TypeVar("T")


def load_study(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: the TOML file; `model` and `calibration` paths in it are relative to it.
        overrides: `a.b.c=VALUE`, applied in order (see `autotune.study.read_and_override.override`).

    Raises:
        InputError: every problem of the file, the overrides, the model and the GPU, each with its path.
    """
    file = Path(path)
    study = read_overridden(read_document(file), overrides, lambda document: study_from_document(document, file))
    return replace(study, overrides=tuple(overrides))


def study_from_document(document: Mapping[str, Any], path: Path) -> Study:
    """Validate and resolve the content of a study file that stands (or would stand) at `path`.

    Raises:
        InputError: as `load_study`.
    """
    problems: list[Problem] = []
    table: StudyTable | None = None
    try:
        table = study_adapter().validate_python(dict(document))
    except ValidationError as error:
        problems += problems_of(error, StudyTable)
    problems += between_fields(document)
    folder = path.parent
    nearest = document.get("approximate") is True
    arch = _collect(problems, lambda: read_model(document.get("model"), folder, approximate=nearest))
    cluster = document.get("cluster")
    gpu = _collect(problems, lambda: read_gpu(cluster.get("gpu") if isinstance(cluster, Mapping) else None))
    profile = _collect(problems, lambda: read_calibration(document.get("calibration"), folder))
    prices = None if table is None else _collect(problems, lambda: _prices(table.prices))
    if table is not None and arch is not None:
        problems += fits_model(arch, resolve.longest_prompt(table.workload) + table.workload.osl.max)
    if table is not None and arch is not None and gpu is not None:
        named = {"$.engine": table.engine, "$.baseline.engine": table.baseline.engine if table.baseline else None}
        problems += engine_problems(named, arch, gpu, table.search, table.engine_version)
    if table is None or arch is None or gpu is None or prices is None or problems:
        raise InputError(problems)
    price = table.cluster.price_per_gpu_hour or prices.get(gpu.name, gpu.price_per_hour)
    size = table.cluster.gpus
    return resolve.study(
        table,
        document,
        path=path,
        arch=arch,
        cluster=Cluster(
            gpus=size,
            gpu=replace(gpu, price_per_hour=price),
            gpus_per_node=table.cluster.gpus_per_node or min(gpu.gpus_per_node, size),
        ),
        prices=prices,
        calibration=profile,
    )


def _prices(given: Mapping[str, float]) -> dict[str, float]:
    """US dollars per GPU and hour by the catalog's name. Raises `InputError` for every name that it does not know."""
    found, problems = {}, []
    for name, price in given.items():
        try:
            found[load_gpu(name).name] = price
        except InputError as error:
            problems += [Problem(path=f"$.prices.{name}", message=p.message) for p in error.problems]
    if problems:
        raise InputError(problems)
    return found


def _collect(problems: list[Problem], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None
