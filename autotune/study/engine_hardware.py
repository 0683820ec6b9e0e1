"""Which engines run on the study's GPUs, and what GPUs do in another way than the checkpoint says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from autotune.engines import ENGINES, Violation, engines_of, listed
from autotune.engines.options import version_key
from autotune.study.question import Study
from autotune.study.sections import Baseline, Search
from costmodel.arch import Arch, checkpoint_dtype, stored_dtypes, stored_in
from costmodel.dtypes import compute_dtype, hardware_dtype
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, Gpu


def engine_problems(
    engines: Mapping[str, str | None], arch: Arch, gpu: Gpu, search: Search, version: str | None
) -> list[Problem]:
    """Why engines, by the path of the field that names them, cannot serve the model on this GPU."""
    named = engines["$.engine"]  # whose version is given

    def reason(name: str) -> str | None:
        own = version if name == named else None
        return ENGINES[name].cannot_run(arch, gpu, search.weight_dtype, search.kv_dtype, own)

    return [
        Problem(path=path, message=f"must run on {gpu.name}: {why}, got {name!r}")
        for path, name in engines.items()
        if name in ENGINES and (why := reason(name)) is not None
    ]


def engines_that_run(
    engine: str, version: str | None, arch: Arch, clusters: Sequence[Cluster], search: Search, said: list[str]
) -> str:
    """The study's engine; where it is any, those that run on all of the clusters, others being named with the reason.

    Dtypes that are searched over and that an engine does not run with are said.

    Raises:
        InputError: it is any, and none does, or it is one that does not run on all of them.
    """
    lacking = {
        name: why
        for name in engines_of(engine)
        for c in reversed(clusters)  # the reason that stays is the first cluster's
        if (why := ENGINES[name].cannot_run(arch, c.gpu, search.weight_dtype, search.kv_dtype, version)) is not None
    }
    left = [name for name in engines_of(engine) if name not in lacking]
    if not left:
        raise InputError.single("$.engine", f"must be able to serve the model here: {'; '.join(lacking.values())}")
    if lacking:
        said.append(f"engine any: {listed([ENGINES[n].title for n in left])}; {'; '.join(lacking.values())}")
    refused = [
        refusal.message
        for name in left
        for c in clusters
        for pair in _pairs(search)
        if (refusal := ENGINES[name].dtype_refusal(arch, c.gpu, *pair, version)) is not None
    ]
    said += [f"search: {message}: left out" for message in dict.fromkeys(refused)]
    unchecked = (text for name in left for w in search.weight_dtype for text in ENGINES[name].unchecked(arch, w))
    said += dict.fromkeys(unchecked)
    return "+".join(left) if lacking else engine


def version_assumptions(name: str, version: str | None) -> list[str]:
    """What is taken of an engine's version where none is given, or it is none of those whose rules are known."""
    if version is None:
        return ["engine_version not given: the version whose rules are modelled"]
    known, title = ENGINES[name].versions(), ENGINES[name].title
    number = version_key(version)
    if not number:
        return [f"engine_version {version}: names no release, so that {title} has the rules of {known[0]} or newer"]
    if number < version_key(known[-1]):
        said = f"engine_version {version}: older than {title} {known[-1]}, the oldest whose options are known: "
        return [f"{said}layouts by the rules that are modelled, which `autotune export` writes no commands for"]
    if number > version_key(known[0]):
        return [f"engine_version {version}: newer than {title} {known[0]}, the newest whose rules are known"]
    return []


def dtype_choices(study: Study, engine: str, *gpus: Gpu) -> list[tuple[str | None, str | None]]:
    """Weight and cache dtypes of a study's search that an engine runs with on a GPU, or on those of two pools.

    None is the checkpoint's.
    """
    return [pair for pair in _pairs(study.search) if _refusal(study, engine, gpus, pair) is None]


def in_production(study: Study, given: Baseline) -> tuple[Study, tuple[str, ...]]:
    """The study for the plan in production, and what is taken of it.

    Of several dtypes to choose from it has the checkpoint's where `given` names none: nobody serves in another without
    saying so. Where the study has a single one, everything is served in that.
    """
    arch, said = study.arch, list[str]()

    def taken(
        name: str, choices: tuple[str | None, ...], stored: str, own: Callable[[str], bool]
    ) -> tuple[str | None, ...]:
        if len(choices) == 1 or getattr(given, name) is not None:
            return choices
        said.append(f"{name} not given: the checkpoint's, {stored}")
        return (next((dtype for dtype in choices if dtype is None or own(dtype)), None),)

    search = study.search
    weights = taken(
        "weight_dtype", search.weight_dtype, checkpoint_dtype(arch), lambda dtype: stored_in(arch, dtype) == arch
    )
    cache = taken("kv_dtype", search.kv_dtype, arch.kv_dtype, lambda dtype: dtype == arch.kv_dtype)
    return replace(study, search=replace(search, weight_dtype=weights, kv_dtype=cache)), tuple(said)


def refused_dtypes(study: Study, engine: str, *gpus: Gpu) -> Violation | None:
    """Why an engine runs with none of the dtypes of a study's search there; None: it does with some."""
    found = [_refusal(study, engine, gpus, pair) for pair in _pairs(study.search)]
    return None if None in found else found[0]


def _pairs(search: Search) -> list[tuple[str | None, str | None]]:
    return list(product(search.weight_dtype, search.kv_dtype))


def _refusal(study: Study, engine: str, gpus: Sequence[Gpu], pair: tuple[str | None, str | None]) -> Violation | None:
    version, pools = study.engine_version if engine == study.engine else None, len(gpus) > 1
    found = (ENGINES[engine].dtype_refusal(study.arch, gpu, *pair, version, pools=pools) for gpu in gpus)
    return next((refusal for refusal in found if refusal is not None), None)


def multiplied_in(arch: Arch, clusters: Sequence[Cluster], search: Search) -> list[str]:
    """What GPUs multiply weights in, where it is not what they are stored in or depends on a server's settings."""
    out = []
    for gpu in (c.gpu for c in clusters):
        for storage in sorted({s for choice in search.weight_dtype for s in stored_dtypes(arch, choice)}):
            wanted, used = hardware_dtype(storage), compute_dtype(storage, gpu.peak_flops_per_s)
            if wanted != used:
                out.append(
                    f"model: {gpu.name} does not multiply in {wanted}: {storage} weights are read as stored and "
                    f"multiplied in {used}"
                )
        experts = {stored_in(arch, choice).dtypes.experts for choice in search.weight_dtype} if arch.is_moe else set()
        out += [
            f"model: {storage} experts on {gpu.name} by the quickest kernels, with activations of 4 or 8 bits "
            f"({settings}); others take two to six times as long"
            for storage, settings in _quick_experts().items()
            if storage in experts and gpu.generation.startswith("blackwell")
        ]
    return list(dict.fromkeys(out))


def _quick_experts() -> dict[str, str]:
    """Storage dtype of experts -> the engines' settings for their quickest kernels."""
    out: dict[str, list[str]] = {}
    for engine in ENGINES.values():
        for storage, setting in engine.quick_experts.items():
            out.setdefault(storage, []).append(f"{engine.title}: {setting}")
    return {storage: ", ".join(settings) for storage, settings in out.items()}
