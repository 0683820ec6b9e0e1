"""`import`: what runs today as a plan, with what the command left open made explicit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command
from autotune.engines.pair_rules import pair_violations
from autotune.launch.document import read_plan
from autotune.launch.files import MARK, is_export
from autotune.launch.gpu_types import gpu_of_label
from autotune.launch.reading.containers import ROLES, Place
from autotune.launch.reading.front import setting_of_front
from autotune.launch.reading.plan_of_command import DEFAULT_GPU_GIB, Part, Started, defaults_of, part_of, same_servers
from autotune.launch.reading.roles import Process, role_of, roles_unknown, servers_of, with_proxied_roles
from autotune.launch.reading.sources import kind_of, read_source, read_text, texts_of
from autotune.launch.reading.variables import unknown_variables
from autotune.space import format_plan, violations
from autotune.space.pooled_planstring import format_pooled
from autotune.study import Baseline, Study
from autotune.study.portable import STUDY_FILE
from autotune.study.served_model import ServedModel, served_model
from autotune.traffic.load import load_study
from costmodel.arch import Arch, load_model, read_config_file
from costmodel.arch.catalog import GUESSED, find_model
from costmodel.errors import InputError, Problem
from costmodel.hardware import Gpu, gpu_names, load_gpu
from costmodel.plan.layout import LAYOUT_AXES, Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A plan as it runs today."""

    gpus: int
    """Of everything that was read."""
    engine: str
    engine_version: str
    model: str | None
    plan: str
    """Plan string, fit for --plan, --from and `baseline.plan`."""
    layout: Layout
    """No `stage_layers` where the layers of the model are not known; of a disaggregated plan, that of decode."""
    knobs: Mapping[str, Any]
    """Likewise."""
    checkpoint_dtype: str | None
    """Storage dtype of the weights where that is not as the study's checkpoint has them; None: it is, or not known."""
    checkpoint_kv_dtype: str | None
    """The same of the KV cache that the checkpoint asks for."""
    unknown: tuple[str, ...]
    """Options and fields that the engine's version does not know."""
    defaults: Mapping[str, Any]
    """Of options that were left out; None: the engine finds the value when it starts."""
    rules_broken: tuple[str, ...]
    """Rules of the engine that the layout breaks for the model; empty where the model is not known."""
    assumptions: tuple[str, ...]
    pools: Mapping[str, ImportedPool] | None = None
    """By role, of a disaggregated plan."""
    max_local_prefill_tokens: int | None = None
    """Of a disaggregated plan: prompts with at most so many tokens to compute go straight to decode; 0: none does."""
    started: Started
    """What is started beside the plan."""

    def baseline(self) -> Baseline:
        """The plan in production as a study has it, with what it says of the knobs; not of what is `started`."""
        weights = {value: dtype for dtype, value in ENGINES[self.engine].weight_names.items()}
        first = self.knobs if self.pools is None else self.pools["prefill"].knobs
        kv, tokens = self.knobs["kv_dtype"], first["max_num_batched_tokens"]
        return Baseline(
            plan=self.plan,
            engine=self.engine,
            max_num_batched_tokens=tokens,
            weight_dtype=weights.get(str(self.knobs["weight_dtype"]), self.checkpoint_dtype),
            kv_dtype=self.checkpoint_kv_dtype if kv is None else kv if kv in ENGINES[self.engine].kv_names else None,
            decode_max_num_seqs=None if self.pools is None else self.knobs["max_num_seqs"],
            max_local_prefill_tokens=self.max_local_prefill_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPool:
    """One side of a disaggregated plan as it runs today."""

    gpu: str | None
    """GPU type; None: not known."""
    layout: Layout
    knobs: Mapping[str, Any]


def import_plan(
    source: str,
    *,
    version: str | None = None,
    study: Study | None = None,
    model: str | None = None,
    given: Mapping[str, str] | None = None,
) -> Imported:
    """Read what runs.

    Args:
        source: a command, or the path of a script, a Compose file, manifests, values of a chart or an exported folder.
        version: of the engine that runs; None: what the export says, or the newest whose options are known.
        study: completes what the flags leave open: the model's layers, whether it has experts, the GPU's memory. None:
            that of an exported folder.
        model: the same by a catalog name or a config.json, and instead of the study's.
        given: variables that are set elsewhere.

    Raises:
        InputError: every problem of the source.
    """
    folder = Path(source) if kind_of(Path(source)) == "folder" and is_export(Path(source)) else None
    document = None if folder is None else json.loads(read_text(folder / MARK))
    if document is not None and version is None:
        version = str(document.get("engine_version"))
    if folder is not None and study is None and model is None and (folder / STUDY_FILE).is_file():
        study = load_study(folder / STUDY_FILE)
    processes = [p for p in read_source(source, version, given) if servers_of(p)]
    processes = with_proxied_roles(processes, texts_of(source), given or {})
    _ask_for_variables(processes)
    heads = _heads(processes)
    command = heads[-1][1][0].command
    arch, served = _arch(command, study, model)
    assumptions = list(served.said)
    if arch is None and document is not None:
        exported = str(document.get("model"))
        arch = load_model(exported) if find_model(exported) is not None else None
        assumptions = []
    gpus_of = _gpus_of_pools(heads, document, study)
    parts = [(role, part_of(servers, arch, gpus_of[role], served.dtype)) for role, servers in heads]
    parts = _with_shares_of_export(parts, document, study)
    problems = [problem for _, part in parts for problem in part.options.problems]
    if problems:
        raise InputError(dict.fromkeys(problems))
    if study is None:
        assumptions.append(f"GPU not known: defaults as on one of {DEFAULT_GPU_GIB:g} GiB")
    whole = parts[-1][1]  # decode, where there are two
    gpus = sum(part.layout.gpus for _, part in parts)
    read = Imported(
        gpus=gpus,
        engine=command.engine,
        engine_version=command.options.version,
        model=command.model,
        plan=format_plan(_with_stages(whole.layout), command.engine),
        layout=whole.layout,
        knobs=whole.knobs,
        checkpoint_dtype=served.dtype,
        checkpoint_kv_dtype=served.kv_dtype,
        unknown=tuple(dict.fromkeys(text for p in processes for text in p.command.unknown)),
        defaults=defaults_of(whole.options),
        rules_broken=tuple(dict.fromkeys(_broken(parts, arch, command.engine))),
        started=whole.started,
        assumptions=tuple(
            dict.fromkeys(
                (
                    *command.assumptions,
                    *assumptions,
                    *(t for _, part in parts for t in part.options.assumptions),
                    *_said(heads, gpus),
                    *_one_of_two(parts),
                    *_unknown_connector(parts, command.engine),
                )
            )
        ),
    )
    if len(parts) > 1:
        home = None if study is None else study.cluster.gpu.name
        alike = home is None and len({None if gpu is None else gpu.name for gpu in gpus_of.values()}) == 1
        names = {role: None if gpu is None or alike or gpu.name == home else gpu.name for role, gpu in gpus_of.items()}
        sides = [(names[role], _with_stages(part.layout)) for role, part in parts]
        pools = {
            str(role): ImportedPool(layout=part.layout, knobs=part.knobs, gpu=names[role] or home)
            for role, part in parts
        }
        local = setting_of_front(texts_of(source)) or 0
        plan = format_pooled(command.engine, sides[0], sides[1])
        started = whole.started.of_pools(parts[0][1].started, ENGINES[command.engine])
        return replace(read, plan=plan, pools=pools, max_local_prefill_tokens=local, started=started)
    return read if folder is None or document is None else _as_exported(read, document, folder)


def _with_shares_of_export(
    parts: Sequence[tuple[str | None, Part]], document: Mapping[str, Any] | None, study: Study | None
) -> list[tuple[str | None, Part]]:
    """Pools of an export without the shares of memory that it wrote for the share that the study has."""
    document = document or {}
    pools, started = document.get("pools"), document.get("started_with")
    filled = started.get("gpu_memory_utilization") if isinstance(started, Mapping) else None
    as_asked = study is None or study.engine_options.gpu_memory_utilization == filled
    out = []
    for role, part in parts:
        side = pools.get(role) if isinstance(pools, Mapping) else None
        written = side.get("memory_fraction") if isinstance(side, Mapping) else None
        same = as_asked and written is not None and written == part.started.memory_fraction
        out.append((role, replace(part, started=replace(part.started, memory_fraction=None)) if same else part))
    return out


def _gpus_of_pools(
    heads: Sequence[tuple[str | None, list[Process]]], document: Mapping[str, Any] | None, study: Study | None
) -> dict[str | None, Gpu | None]:
    """The GPU of each kind of server: as an export wrote it down or pods select their nodes, else the study's.

    `document`: of the export; None: there is none.
    """
    own = () if study is None else (study.cluster.gpu, *(c.gpu for c in study.axes.other_gpus))
    known = {gpu.name: gpu for gpu in own}
    written = document.get("pools") if document is not None else None
    out: dict[str | None, Gpu | None] = {}
    for role, servers in heads:
        side = written.get(role) if isinstance(written, Mapping) else None
        name = side.get("gpu") if isinstance(side, Mapping) else None
        selected = servers[0].place.product
        if role is not None and not isinstance(name, str) and selected is not None:
            name = gpu_of_label(selected, own)
        # a name that no catalog has is what the study that was exported called its own
        catalog = load_gpu(name) if isinstance(name, str) and name in gpu_names() else None
        out[role] = known.get(str(name), catalog) or (None if study is None else study.cluster.gpu)
    return out


def _heads(processes: list[Process]) -> list[tuple[str | None, list[Process]]]:
    """The servers by role, prefill first; one entry without a role where they all do both.

    Raises:
        InputError: there is no server, or those of a role are no copies of one.
    """
    heads = [p for p in processes if not ENGINES[p.command.engine].is_worker(p.command)]
    if not heads:
        raise InputError.single("FILE|COMMAND", "must start a server: it holds only further nodes of one (--headless)")
    by_role = {role: [p for p in heads if role_of(p) == role] for role in ROLES}
    neither = [p for p in heads if role_of(p) is None]
    for here, other in (ROLES, ROLES[::-1]):  # Dynamo's workers for decode have no option that says so
        by_option = any(role_of(replace(p, place=Place())) == here for p in by_role[here])
        if neither and by_option and not by_role[other]:
            by_role[other], neither = neither, []
    if not neither and all(by_role.values()):
        for servers in by_role.values():
            same_servers([p.command for p in servers])
        engines = {p.command.engine for p in heads}
        if len(engines) > 1:
            raise InputError.single(
                "FILE", f"prefill and decode must run on one engine, got {', '.join(sorted(engines))}"
            )
        return [(role, by_role[role]) for role in ROLES]
    same_servers([p.command for p in heads], roles_unknown(heads))
    return [(None, heads)]


def _broken(parts: Sequence[tuple[str | None, Part]], arch: Arch | None, name: str) -> list[str]:
    """Rules that the layouts break: of the engine, and of the connector between two pools."""
    if arch is None or not all(part.layout.stage_layers for _, part in parts):
        return []
    engine, connector = ENGINES[name], ENGINES[name].stated_connector(parts[0][1].options)
    own = connector == engine.connector
    found = [v for role, part in parts for v in violations(arch, name, part.layout, role=role if own else None)]
    if len(parts) > 1:
        rules = engine.connectors.get(connector or "", ())
        found += pair_violations(rules, arch, *(part.layout for _, part in parts))
    return [f"{v.rule}: {v.message}" for v in found]


def _unknown_connector(parts: Sequence[tuple[str | None, Part]], name: str) -> list[str]:
    connector = ENGINES[name].stated_connector(parts[0][1].options)
    if len(parts) == 1 or connector in (ENGINES[name].connector, *ENGINES[name].connectors):
        return []
    return [f"what {connector} asks of two pools is not known: they are held against no rule for pairs"]


def _one_of_two(parts: Sequence[tuple[str | None, Part]]) -> list[str]:
    """What is to be said where pools store weights or caches in dtypes of their own: a plan has one, that of decode."""
    said = []
    for name, title in (("kv_dtype", "KV cache"), ("weight_dtype", "weights")):
        kinds = [str(part.knobs[name] or "the checkpoint's dtype") for _, part in parts]
        if len(set(kinds)) > 1:
            of_each = " and ".join(
                f"{role} has its {title} in {kind}" for (role, _), kind in zip(parts, kinds, strict=True)
            )
            said.append(f"{of_each}: {kinds[-1]} is taken for both, as a plan has one")
    return said


def _said(heads: list[tuple[str | None, list[Process]]], gpus: int) -> list[str]:
    """What is to be said of how many GPUs there are and of servers that stand alone."""
    processes = [p for _, servers in heads for p in servers]
    unknown = roles_unknown(processes) if len(heads) == 1 else None
    said = [] if unknown is None else [f"{unknown}: taken for servers that do both"]
    if len(heads) == 1 and (roles := {role_of(p) for p in processes} - {None}):
        role = sorted(map(str, roles))[0]
        said.append(
            f"servers for {role} alone: taken as a plan of their own, the others of a disaggregated plan are not here"
        )
    asked = [p.place.gpus * p.place.copies * p.place.pods for p in processes if p.place.gpus is not None]
    if len(asked) == len(processes) and sum(asked) != gpus:
        said.append(f"{sum(asked)} GPUs are asked for, the options use {gpus}")
    return said


def _ask_for_variables(processes: list[Process]) -> None:
    """Raises `InputError`: an option that decides about the plan is a variable that nothing sets."""
    problems: dict[str, Problem] = {}
    for command in (p.command for p in processes):
        for name in ENGINES[command.engine].shown_options:
            value = command.values.get(name)
            if not isinstance(value, str) or "$" not in value or name == "nnodes":
                continue
            for variable in unknown_variables(value):
                flag = command.options.options[name].flags[0] if name in command.options.options else name
                problems.setdefault(
                    variable,
                    Problem(
                        path=f"--var {variable}",
                        message=f"is required: {flag} is {value[:60]}, set elsewhere; as in --var {variable}=8",
                    ),
                )
    if problems:
        raise InputError(problems.values())


def _arch(command: Command, study: Study | None, model: str | None) -> tuple[Arch | None, ServedModel]:
    if model is not None:
        path = Path(model)
        given = read_config_file(path) if model.endswith(".json") or path.exists() else load_model(model)
        return given, ServedModel()
    if study is not None:
        return study.arch, ServedModel() if command.model is None else served_model(command.model, study.arch)
    found = None if command.model is None else find_model(command.model)
    if command.model is not None and found is not None:
        said = f"model {command.model!r} read as {found.catalog} of the catalog"
        arch = load_model(command.model)
        return arch, ServedModel(said=(said, *(text for text in arch.assumptions if text.startswith(GUESSED))))
    said = f"model {command.model!r} is not known: name it with --model or --study to complete the plan"
    return None, ServedModel(said=(said,))


def _with_stages(layout: Layout) -> Layout:
    """The layout; where the model's layers are not known, without them: the engine's own split."""
    return layout if layout.stage_layers else replace(layout, stage_layers=(1,) * layout.pp)


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
