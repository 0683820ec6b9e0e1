"""What a study names rather than holds: a model, a GPU, a calibration profile. Read once, when the study is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from costmodel.arch import Arch, load_model, read_config, read_config_file
from costmodel.arch.catalog import find_model
from costmodel.calibration.profile import Profile, read_profile
from costmodel.errors import InputError, Problem
from costmodel.hardware import Gpu, gpu_from_table, load_gpu


def read_model(model: object, folder: Path, *, approximate: bool) -> Arch | None:
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
    if not says_path and (find_model(model) is not None or not os.path.exists(folder / given)):
        return None
    return folder / (given.expanduser() if model.startswith("~/") else given)


def read_calibration(calibration: object, folder: Path) -> Profile | None:
    """The user's profile; None where `calibration` is no path, which the schema reports."""
    if not isinstance(calibration, str) or not calibration:
        return None
    file = folder / calibration
    if not os.path.isfile(file):  # also of a name too long, or with a NUL
        raise InputError.single("$.calibration", f"must be the path of a profile, no file {file}")
    return read_profile(file)


def read_gpu(gpu: object) -> Gpu | None:
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
