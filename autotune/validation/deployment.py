"""What a benchmark's result says it ran on, beside the study and the plan that it is held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autotune.disaggregated.plan_results import pool_cluster
from autotune.engines import ENGINES
from autotune.scoring.plan_result import PlanResult
from autotune.space import Candidate
from autotune.study import Study, cluster_of
from autotune.study.served_model import served_model
from autotune.traffic.options import same_model
from autotune.validation.reported import Reported
from costmodel.arch import Arch
from costmodel.arch.weights import checkpoint_dtype
from costmodel.dtypes import storage
from costmodel.errors import InputError, Problem
from costmodel.hardware import Gpu, load_gpu
from costmodel.measured.csv_fields import PRECISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What ran, where the result says it."""

    weight_dtype: str | None
    """Of its weights, where they are stored otherwise than the study's; None: they are not, or it is not known."""
    said: tuple[str, ...]
    """What was assumed."""


def engine_named(text: str) -> str | None:
    """The engine that a tool's word is of, as `dynamo-sglang`; None: of none that is known."""
    word = text.lower()
    return next((e.name for e in ENGINES.values() if any(own in word for own in (e.name, *e.other_names))), None)


def deployment(reported: Reported, study: Study, candidate: Candidate, pooled: PlanResult | None) -> Deployment:
    """What a result says of the server that it measured.

    Raises:
        InputError: it is of another model, GPU or engine than the plan; lists every one.
    """
    problems = list(_differences(reported, study, candidate, pooled))
    dtype, said = None, list[str]()
    if reported.model is not None:
        try:
            served = served_model(reported.model, study.arch)
        except InputError as error:
            problems += error.problems
        else:
            dtype = served.dtype
            if dtype is not None or not same_model(reported.model, study.arch.name):
                said += served.said
    if problems:
        raise InputError(problems)
    if reported.gpu is not None and _catalog_name(reported.gpu) is None:
        said.append(f"GPU {reported.gpu!r} taken for the plan's: its name is not known")
    precision = (reported.precision or "").lower()
    if precision not in PRECISIONS:
        said.append(f"precision {precision!r} is not known: weights as in the checkpoint")
    elif dtype is None and not _is_stored_in(study.arch, PRECISIONS[precision]):
        dtype = PRECISIONS[precision]
        said.append(f"precision {precision}: predicted with weights in {dtype}, and learnt for them alone")
    return Deployment(weight_dtype=dtype, said=tuple(said))


def _differences(
    reported: Reported, study: Study, candidate: Candidate, pooled: PlanResult | None
) -> Iterator[Problem]:
    gpus = _gpus(study, candidate, pooled)
    names = {name for gpu in gpus for name in (gpu.name, gpu.measured_as)}
    known = None if reported.gpu is None else _catalog_name(reported.gpu)
    if known is not None and known not in names:
        own = " and ".join(dict.fromkeys(gpu.name for gpu in gpus))
        yield Problem(path="gpu", message=f"must be the plan's, {own}: what ran was on {known}")
    if reported.engine is not None and reported.engine != candidate.engine:
        engine = ENGINES.get(reported.engine)
        title = reported.engine if engine is None else engine.title
        message = f"must be the plan's, {ENGINES[candidate.engine].title}: what ran was {title}"
        yield Problem(path="engine", message=message)


def _gpus(study: Study, candidate: Candidate, pooled: PlanResult | None) -> list[Gpu]:
    if pooled is None or pooled.pools is None:
        return [cluster_of(study, candidate.gpu, candidate.layout.gpus).gpu]
    return [pool_cluster(study, pool.gpu).gpu for pool in (pooled.pools.prefill, pooled.pools.decode)]


def _catalog_name(name: str) -> str | None:
    """The catalog's GPU of a name, which may tell machines of one GPU apart after a hyphen: `h200-cw`."""
    for text in (name, name.partition("-")[0]):
        try:
            return load_gpu(text).name
        except InputError:
            continue
    return None


def _is_stored_in(arch: Arch, dtype: str) -> bool:
    """Whether a checkpoint has weights of that width and kind already: `fp4` is said of MXFP4 and NVFP4."""
    if not dtype:
        return True
    own, asked = storage(checkpoint_dtype(arch)), storage(dtype)
    return own.bits == asked.bits and own.base.startswith("int") == asked.base.startswith("int")
