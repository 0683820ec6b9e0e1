"""`import`: what runs today as a plan, with what the command left open made explicit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command, OptionReader
from autotune.launch.document import read_plan
from autotune.launch.files import MARK, is_export
from autotune.launch.reading.plan_of_command import defaults_of, knobs_of, layout_of, same_servers
from autotune.launch.reading.sources import read_source, read_text
from autotune.space import format_plan, violations
from autotune.study import Study, load_study
from autotune.study.portable import STUDY_FILE
from costmodel.arch import Arch, load_model, read_config_file
from costmodel.arch.catalog import find_model
from costmodel.errors import InputError
from costmodel.plan.layout import LAYOUT_AXES, Layout

DEFAULT_GPU_GIB = 80.0
"""Where nobody says which GPU it is, an H100's: engines choose some defaults by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A plan as it runs today."""

    engine: str
    engine_version: str
    model: str | None
    plan: str
    """Plan string, fit for --plan, --from and `baseline.plan`."""
    layout: Layout
    """No `stage_layers` where the layers of the model are not known."""
    knobs: Mapping[str, Any]
    unknown: tuple[str, ...]
    """Options and fields that the engine's version does not know."""
    defaults: Mapping[str, Any]
    """Of options that were left out; None: the engine finds the value when it starts."""
    rules_broken: tuple[str, ...]
    """Rules of the engine that the layout breaks for the model; empty where the model is not known."""
    assumptions: tuple[str, ...]


def import_plan(
    source: str, *, version: str | None = None, study: Study | None = None, model: str | None = None
) -> Imported:
    """Read what runs.

    Args:
        source: a command, or the path of a script, a Compose file, manifests or an exported folder.
        version: of the engine that runs; None: what the export says, or the newest whose options are known.
        study: completes what the flags leave open: the model's layers, whether it has experts, the GPU's memory. None:
            that of an exported folder.
        model: the same by a catalog name or a config.json, and instead of the study's.

    Raises:
        InputError: every problem of the source.
    """
    folder = Path(source) if _exported(source) else None
    document = None if folder is None else json.loads(read_text(folder / MARK))
    if document is not None and version is None:
        version = str(document.get("engine_version"))
    if folder is not None and study is None and model is None and (folder / STUDY_FILE).is_file():
        study = load_study(folder / STUDY_FILE)
    commands = read_source(source, version)
    command, servers = _server(commands)
    arch, assumptions = _arch(command, study, model)
    if arch is None and document is not None:
        arch, assumptions = _arch_named(str(document.get("model"))), []
    gpu_gib = DEFAULT_GPU_GIB if study is None else study.cluster.gpu.hbm_bytes / 2**30
    options = OptionReader(command=command, gpu_gib=gpu_gib)
    layout = layout_of(options, arch, servers)
    knobs = knobs_of(options, layout)
    if options.problems:
        raise InputError(options.problems)
    if study is None:
        assumptions.append(f"GPU not known: defaults as on one of {DEFAULT_GPU_GIB:g} GiB")
    broken = violations(arch, command.engine, layout) if layout.stage_layers and arch is not None else ()
    read = Imported(
        engine=command.engine,
        engine_version=command.options.version,
        model=command.model,
        plan=_plan(layout, command.engine),
        layout=layout,
        knobs=knobs,
        unknown=tuple(dict.fromkeys(text for c, _ in commands for text in c.unknown)),
        defaults=defaults_of(options),
        rules_broken=tuple(f"{v.rule}: {v.message}" for v in broken),
        assumptions=(*command.assumptions, *assumptions, *options.assumptions),
    )
    return read if folder is None or document is None else _as_exported(read, document, folder)


def _exported(source: str) -> bool:
    try:
        return Path(source).is_dir() and is_export(Path(source))
    except (OSError, ValueError):
        return False


def _server(commands: list[tuple[Command, int]]) -> tuple[Command, int]:
    """The command of the servers, which have to be copies of one, and how many of them run."""
    heads = [(c, n) for c, n in commands if not ENGINES[c.engine].is_worker(c)]
    if not heads:
        raise InputError.single("FILE|COMMAND", "must start a server: it holds only further nodes of one (--headless)")
    same_servers([c for c, _ in heads])
    return heads[0][0], sum(n for _, n in heads)


def _arch(command: Command, study: Study | None, model: str | None) -> tuple[Arch | None, list[str]]:
    if model is not None:
        path = Path(model)
        return (read_config_file(path) if model.endswith(".json") or path.exists() else load_model(model)), []
    if study is not None:
        taken = [] if command.model is None else [f"model {command.model!r} taken for the study's, {study.arch.name}"]
        return study.arch, taken
    named = None if command.model is None else _arch_named(command.model)
    if named is not None:
        return named, [f"model {command.model!r} read as {named.name} of the catalog"]
    return None, [f"model {command.model!r} is not known: name it with --model or --study to complete the plan"]


def _arch_named(name: str) -> Arch | None:
    return load_model(name) if find_model(name) is not None else None


def _plan(layout: Layout, engine: str) -> str:
    """The plan string; where the model's layers are not known, without them: the engine's own split."""
    return format_plan(layout if layout.stage_layers else replace(layout, stage_layers=(1,) * layout.pp), engine)


def _as_exported(read: Imported, document: Mapping[str, Any], folder: Path) -> Imported:
    """What the export wrote down, which its commands have to agree with.

    Raises:
        InputError: the commands were changed so that they start another plan.
    """
    path = str(folder / MARK)
    written, exported_knobs = read_plan(document, path)
    knobs = asdict(exported_knobs)
    names = (*LAYOUT_AXES, "stage_layers") if read.layout.stage_layers else LAYOUT_AXES
    differs = [
        f"{name} {getattr(written, name)} in {MARK}, {getattr(read.layout, name)} in the commands"
        for name in names
        if getattr(written, name) != getattr(read.layout, name)
    ]
    if differs:
        raise InputError.single(str(folder), "must start the plan it was exported for: " + "; ".join(differs))
    return replace(
        read,
        engine_version=str(document.get("engine_version")),
        model=str(document.get("model")),
        plan=format_plan(written, read.engine),
        layout=written,
        knobs=knobs | {k: v for k, v in read.knobs.items() if k not in knobs},
        rules_broken=(),
    )
