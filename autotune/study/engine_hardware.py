"""Which engines run on the study's GPUs, and what GPUs do in another way than the checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.engines import ANY, ENGINES, listed
from autotune.study.sections import Search
from costmodel.arch import Arch, stored_dtypes, stored_in
from costmodel.dtypes import compute_dtype, hardware_dtype
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, Gpu


def engine_problems(
    engines: Mapping[str, str | None], arch: Arch, gpu: Gpu, weights: Sequence[str | None]
) -> list[Problem]:
    """Why engines, by the path of the field that names them, cannot serve the model on this GPU."""
    return [
        Problem(path=path, message=f"must run on {gpu.name}: {why}, got {name!r}")
        for path, name in engines.items()
        if name in ENGINES and (why := ENGINES[name].cannot_run(arch, gpu, weights)) is not None
    ]


def engines_that_run(engine: str, arch: Arch, clusters: Sequence[Cluster], search: Search, said: list[str]) -> str:
    """The study's engine; where it is any, those that run on all of the clusters, others being named with the reason.

    Raises:
        InputError: it is any, and none does.
    """
    if engine != ANY:
        return engine
    lacking = {
        name: why
        for name, one in ENGINES.items()
        for c in reversed(clusters)  # the reason that stays is the first cluster's
        if (why := one.cannot_run(arch, c.gpu, search.weight_dtype)) is not None
    }
    left = [name for name in ENGINES if name not in lacking]
    if not left:
        raise InputError.single("$.engine", f"must be able to serve the model here: {'; '.join(lacking.values())}")
    if lacking:
        said.append(f"engine any: {listed([ENGINES[n].title for n in left])}; {'; '.join(lacking.values())}")
    return "+".join(left) if lacking else engine


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
