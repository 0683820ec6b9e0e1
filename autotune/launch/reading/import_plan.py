"""`import`: what runs today as a plan, with what the command left open made explicit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autotune.launch.document import layout_values, read_knobs, read_layout
from autotune.launch.files import MARK, is_export
from autotune.launch.reading.option_reader import Values
from autotune.launch.reading.parse import Command
from autotune.launch.reading.plan_of_command import AXES, Axes, defaults_of, is_head, knobs_of, same_servers
from autotune.launch.reading.sources import Running, read_source, read_text, with_config
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
    layout: Mapping[str, Any]
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
    running = read_source(source, version)
    heads, servers = _heads(running)
    command = heads[0]
    arch, said = _arch(command, study, model)
    if arch is None and document is not None:
        arch, said = _arch_named(str(document.get("model"))), []
    values = Values(command=command, gpu_gib=DEFAULT_GPU_GIB if study is None else study.cluster.gpu.hbm_bytes / 2**30)
    axes = AXES[command.engine](values, arch, servers)
    knobs = knobs_of(values, axes)
    if values.problems:
        raise InputError(values.problems)
    if study is None:
        said.append(f"GPU not known: defaults as on one of {DEFAULT_GPU_GIB:g} GiB")
    layout = axes.layout(arch, command.engine)
    said = [*running.assumptions, *command.assumptions, *said, *values.said]
    if document is not None:
        return _as_exported(document, folder or Path(), command, axes, layout, knobs, values, tuple(said))
    return _imported(command, axes, layout, arch, knobs, values, tuple(said), _unknown(running))


def _exported(source: str) -> bool:
    try:
        return Path(source).is_dir() and is_export(Path(source))
    except (OSError, ValueError):
        return False


def _heads(running: Running) -> tuple[list[Command], int]:
    """The commands that are servers of their own, and how many of them run."""
    pairs = [(with_config(c, running.folder), n) for c, n in running.commands if is_head(c)]
    if not pairs:
        raise InputError.single("FILE|COMMAND", "must start a server: it holds only further nodes of one (--headless)")
    heads = [c for c, _ in pairs]
    same_servers(heads)
    return heads, sum(n for _, n in pairs)


def _unknown(running: Running) -> tuple[str, ...]:
    commands = [with_config(c, running.folder) for c, _ in running.commands]
    return tuple(dict.fromkeys(text for c in commands for text in c.unknown))


def _arch(command: Command, study: Study | None, model: str | None) -> tuple[Arch | None, list[str]]:
    if model is not None:
        path = Path(model)
        return (read_config_file(path) if model.endswith(".json") or path.exists() else load_model(model)), []
    if study is not None:
        said = [] if command.model is None else [f"model {command.model!r} taken for the study's, {study.arch.name}"]
        return study.arch, said
    named = None if command.model is None else _arch_named(command.model)
    if named is not None:
        return named, [f"model {command.model!r} read as {named.name} of the catalog"]
    return None, [f"model {command.model!r} is not known: name it with --model or --study to complete the plan"]


def _arch_named(name: str) -> Arch | None:
    return load_model(name) if find_model(name) is not None else None


def _imported(
    command: Command,
    axes: Axes,
    layout: Layout | None,
    arch: Arch | None,
    knobs: Mapping[str, Any],
    values: Values,
    said: tuple[str, ...],
    unknown: tuple[str, ...],
) -> Imported:
    broken = () if layout is None or arch is None else violations(arch, command.engine, layout)
    return Imported(
        engine=command.engine,
        engine_version=command.options.version,
        model=command.model,
        plan=_plan(axes, layout, command.engine),
        layout=_axes_values(axes) if layout is None else layout_values(layout),
        knobs=knobs,
        unknown=unknown,
        defaults=defaults_of(values),
        rules_broken=tuple(f"{v.rule}: {v.message}" for v in broken),
        assumptions=said,
    )


def _axes_values(axes: Axes) -> dict[str, Any]:
    return {name: getattr(axes, name) for name in LAYOUT_AXES} | {"stage_layers": None}


def _plan(axes: Axes, layout: Layout | None, engine: str) -> str:
    """The plan string; where the model's layers are not known, without them: the engine's own split."""
    known = layout or Layout(**{name: getattr(axes, name) for name in LAYOUT_AXES}, stage_layers=(1,) * axes.pp)
    return format_plan(known, engine)


def _as_exported(
    document: Mapping[str, Any],
    folder: Path,
    command: Command,
    axes: Axes,
    layout: Layout | None,
    knobs: Mapping[str, Any],
    values: Values,
    said: tuple[str, ...],
) -> Imported:
    """What the export wrote down, which its commands have to agree with.

    Raises:
        InputError: the commands were changed so that they start another plan.
    """
    path = str(folder / MARK)
    written, kept = read_layout(document, path), asdict(read_knobs(document, path))
    differs = [
        f"{name} {getattr(written, name)} in {MARK}, {getattr(axes, name)} in the commands"
        for name in LAYOUT_AXES
        if getattr(written, name) != getattr(axes, name)
    ]
    if layout is not None and layout.stage_layers != written.stage_layers:
        differs.append(f"stage_layers {written.stage_layers} in {MARK}, {layout.stage_layers} in the commands")
    if differs:
        raise InputError.single(str(folder), "must start the plan it was exported for: " + "; ".join(differs))
    more = {k: v for k, v in knobs.items() if k not in kept}
    return Imported(
        engine=command.engine,
        engine_version=str(document.get("engine_version")),
        model=str(document.get("model")),
        plan=format_plan(written, command.engine),
        layout=layout_values(written),
        knobs=kept | more,
        unknown=command.unknown,
        defaults=defaults_of(values),
        rules_broken=(),
        assumptions=said,
    )
