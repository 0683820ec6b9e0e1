"""Reading files of measured serving runs: CSV, columns by name.

What such a file does not record is taken as benchmarks of InferenceMAX's kind set it (`benchmark_recipes`): whoever
has other settings gives them in columns of their own, `max_num_batched_tokens`, `kv_dtype`, `scheduler_recv_interval`
(SGLang) and `batch_wait_timeout_iters` (TensorRT-LLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from costmodel.arch import Arch
from costmodel.calibration.residual import UNRECORDED
from costmodel.dtypes import KV_BYTES
from costmodel.engine import EngineTraits
from costmodel.errors import Problem
from costmodel.estimate.batch import PlanEntry
from costmodel.hardware import Cluster, Gpu
from costmodel.measured.benchmark_recipes import AS_CHECKPOINT, ServerSettings, recipe_settings
from costmodel.measured.csv_fields import (
    inferred_kv_dtype,
    read_layout,
    read_ms,
    read_number,
    read_servers,
    read_setting,
)
from costmodel.measured.runs import BATCHED_TOKENS, Run

REQUIRED = ("gpu", "engine", "model", "isl", "osl", "concurrency", "attn_tp")
UNIFORM_MEAN = 0.9
"""Lengths drawn from [0.8, 1.0] of the nominal ones have this mean."""


def read_runs(
    path: Path,
    engines: Mapping[str, EngineTraits],
    models: Path | None = None,
    own_gpus: Mapping[str, Gpu] = MappingProxyType({}),
) -> tuple[Run, ...]:
    """Read a CSV with the columns of `REQUIRED` and more; unknown columns are ignored.

    `models`: a folder of config.json files, matched by name, that goes before the catalog; `own_gpus`: GPUs that do.

    Raises:
        InputError: every row and column that cannot be read; unknown models and GPUs are named once each.
    """
    return _with_clients(read_servers(path, REQUIRED, engines, models, _run, own_gpus))


def _with_clients(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """The runs, and whose client sends requests that do not stay in step (`Run.staggered`).

    Benchmarks that begin with all their requests at once step through powers of two. Where a server was measured at
    other numbers in flight too, another client sent the requests: TPOTs of such runs have prompts of others in them,
    which those of requests that begin and end together do not have.
    """

    def server(run: Run) -> tuple[str, ...]:
        return run.gpu, run.engine, run.engine_version, run.model, run.precision

    others = {server(r) for r in runs if r.same_lengths and not np.log2(r.concurrency).is_integer()}
    return tuple(replace(r, staggered=r.same_lengths and server(r) in others) for r in runs)


def _run(
    row: Mapping[str, str],
    at: str,
    engine: EngineTraits | None,
    arch: Arch | None,
    gpu: Gpu | None,
    problems: list[Problem],
) -> Run | None:
    before = len(problems)
    isl, osl = read_number(row, "isl", at, problems), read_number(row, "osl", at, problems)
    concurrency = read_number(row, "concurrency", at, problems)
    ttft_s, tpot_s = read_ms(row, "ttft_ms", at, problems), read_ms(row, "tpot_ms", at, problems)
    if arch is None or gpu is None or engine is None or len(problems) > before:
        return None
    layout = read_layout(row, at, arch, problems)
    if layout is None:
        return None
    version = row.get("engine_version", "")
    # the benchmark whose lengths are drawn so left versions out of its records at first, and the fit has such runs
    drawn = row.get("lengths") == "uniform"
    mean = UNIFORM_MEAN if drawn else 1.0
    precision = row.get("precision", "") or "bf16"
    said = ServerSettings(
        max_num_batched_tokens=read_setting(row, "max_num_batched_tokens", at, problems),
        kv_dtype=row.get("kv_dtype") or None,
        poll_steps=read_setting(row, "scheduler_recv_interval", at, problems),
        hold_steps=read_setting(row, "batch_wait_timeout_iters", at, problems),
    )
    if said.kv_dtype not in (None, AS_CHECKPOINT, *KV_BYTES):
        known = ", ".join((AS_CHECKPOINT, *KV_BYTES))
        problems.append(Problem(path=at, message=f"kv_dtype must be one of {known}, got {said.kv_dtype!r}"))
    if len(problems) > before:
        return None
    recipe = ServerSettings()
    if drawn:
        recipe = recipe_settings(
            engine=engine.name,
            model=row["model"],
            gpu=gpu.name,
            precision=precision,
            isl=isl,
            osl=osl,
            gpus=layout.gpus,
            concurrency=concurrency,
        )
    server = said.filled_from(recipe)
    kv_dtype = server.kv_dtype or inferred_kv_dtype(arch, gpu, engine, precision)
    return Run(
        id=row.get("id", "") or at,
        gpu=row["gpu"],
        engine=engine.name,
        engine_version=version,
        model=row["model"],
        precision=precision,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        entry=PlanEntry(
            arch=arch,
            cluster=Cluster(gpus=layout.gpus, gpu=gpu, gpus_per_node=gpu.gpus_per_node),
            engine=engine,
            layout=layout,
            kv_dtype=None if kv_dtype == AS_CHECKPOINT else kv_dtype,
            engine_version=version or (UNRECORDED if drawn else None),
        ),
        same_lengths=row.get("lengths") == "fixed",
        mean_isl=isl * mean,
        mean_osl=max(osl * mean, 1.0),
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        batched_tokens=server.max_num_batched_tokens or BATCHED_TOKENS,
        poll_steps=server.poll_steps or 0.0,
        hold_steps=server.hold_steps or 0.0,
        by_recipe=server != said,
    )
