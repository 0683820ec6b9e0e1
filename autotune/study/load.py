"""From a study file to a `Study`: read, override, validate, resolve; every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from autotune.study import resolve
from autotune.study.engine_hardware import engine_problems
from autotune.study.read_and_override import override, read_document
from autotune.study.references import read_calibration, read_gpu, read_model
from autotune.study.resolve_wider_search import study_prices
from autotune.study.rules import between_fields, fits_model
from autotune.study.schema import StudyTable
from autotune.study.validation_messages import problems_of
from autotune.study.values import Study
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster

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
    study = study_from_document(override(read_document(file), overrides), file)
    return replace(study, overrides=tuple(overrides))


def study_from_document(document: Mapping[str, Any], path: Path) -> Study:
    """Validate and resolve the content of a study file that stands (or would stand) at `path`.

    Raises:
        InputError: as `load_study`.
    """
    problems: list[Problem] = []
    table: StudyTable | None = None
    try:
        table = StudyTable.model_validate(dict(document))
    except ValidationError as error:
        problems += problems_of(error, StudyTable)
    problems += between_fields(document)
    folder = path.parent
    arch = _collect(problems, lambda: read_model(document.get("model"), folder))
    cluster_table = document.get("cluster")
    gpu = _collect(problems, lambda: read_gpu(cluster_table.get("gpu") if isinstance(cluster_table, Mapping) else None))
    profile = _collect(problems, lambda: read_calibration(document.get("calibration"), folder))
    if table is not None and arch is not None:
        longest = resolve.longest_prompt(table.workload) + resolve.span(table.workload.osl).max
        problems += fits_model(arch, longest)
    if table is not None and arch is not None and gpu is not None:
        named = {"$.engine": table.engine, "$.baseline.engine": table.baseline.engine if table.baseline else None}
        problems += engine_problems(named, arch, gpu, table.search.weight_dtype or (None,))
    if table is None or arch is None or gpu is None or problems:
        raise InputError(problems)
    if table.cluster.price_per_gpu_hour is not None:
        gpu = replace(gpu, price_per_hour=table.cluster.price_per_gpu_hour)
    elif (price := study_prices(table).get(gpu.name)) is not None:
        gpu = replace(gpu, price_per_hour=price)
    per_node = table.cluster.gpus_per_node or min(gpu.gpus_per_node, table.cluster.gpus)
    cluster = Cluster(gpus=table.cluster.gpus, gpu=gpu, gpus_per_node=per_node)
    return resolve.study(table, path=path, arch=arch, cluster=cluster, calibration=profile)


def _collect(problems: list[Problem], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None
