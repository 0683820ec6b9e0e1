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
from autotune.study.resolve_wider_search import study_prices
from autotune.study.rules import between_fields, fits_model
from autotune.study.schema import StudyTable
from autotune.study.validation_messages import problems_of
from autotune.study.values import Study
from costmodel.arch import Arch, load_model, read_config, read_config_file
from costmodel.arch.catalog import find_model
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, Gpu, gpu_from_table, load_gpu

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
    return study_from_document(override(read_document(file), overrides), file)


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
    nearest = document.get("approximate") is True
    arch = _collect(problems, lambda: _read_model(document.get("model"), folder, approximate=nearest))
    cluster_table = document.get("cluster")
    gpu = _collect(
        problems, lambda: _read_gpu(cluster_table.get("gpu") if isinstance(cluster_table, Mapping) else None)
    )
    calibration = document.get("calibration")
    profile = folder / calibration if isinstance(calibration, str) and calibration else None
    if profile is not None and not _is_file(profile):
        problems.append(Problem(path="$.calibration", message=f"must be the path of a profile, no file {profile}"))
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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False


def _read_model(model: object, folder: Path, *, approximate: bool) -> Arch | None:
    """The architecture; None where `model` is no name and no table, which the schema reports.

    `approximate`: where the file asks for what is not modelled, the nearest is taken.
    """
    if isinstance(model, Mapping):
        name = model.get("name") or model.get("_name_or_path")
        content = {key: value for key, value in model.items() if key != "name"}
        try:
            named = name if isinstance(name, str) else "custom model"
            return read_config(content, name=named, approximate=approximate)
        except InputError as error:
            raise InputError(
                Problem(path=f"$.model{p.path.removeprefix('$')}", message=p.message) for p in error.problems
            ) from error
    if not isinstance(model, str) or not model:
        return None
    file = model_file(model, folder)
    try:
        return load_model(model) if file is None else read_config_file(file, approximate=approximate)
    except InputError as error:
        raise InputError(
            Problem(path="$.model", message=p.message if p.path == "model" else str(p)) for p in error.problems
        ) from error


def model_file(model: str, folder: Path) -> Path | None:
    """The config.json, or the folder of one, that a `model` string means; None: it is a catalog name.

    What ends in .json or begins like a path is a path; else a catalog name goes before a file of that name.
    """
    given = Path(model)
    says_path = model.endswith(".json") or model.startswith(("./", "../", "/", "~"))
    if not says_path and (find_model(model) is not None or not _exists(folder / given)):
        return None
    return folder / (given.expanduser() if model.startswith("~/") else given)


def _exists(path: Path) -> bool:
    return _is_file(path) or _is_dir(path)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _read_gpu(gpu: object) -> Gpu | None:
    """The GPU; None where `gpu` is no name and no table, which the schema reports."""
    here = "$.cluster.gpu"
    try:
        if isinstance(gpu, Mapping):
            return gpu_from_table(gpu, here)
        return load_gpu(gpu) if isinstance(gpu, str) and gpu else None
    except InputError as error:
        raise InputError(
            Problem(path=here if p.path == "gpu" else p.path, message=p.message) for p in error.problems
        ) from error
