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

from costmodel.calibration.measured_cells import UNRECORDED
from costmodel.dtypes import KV_BYTES
from costmodel.engine import EngineTraits
from costmodel.hardware import Gpu
from costmodel.measured.benchmark_recipes import AS_CHECKPOINT, ServerSettings, recipe_settings
from costmodel.measured.csv_columns import Columns
from costmodel.measured.csv_fields import LAYOUT_COLUMNS, SERVER_COLUMNS, Row, Server, read_servers
from costmodel.measured.runs import BATCHED_TOKENS, Run

MEASURED = ("ttft_ms", "tpot_ms")
REQUIRED = ("gpu", "engine", "model", "isl", "osl", "concurrency", "attn_tp")
SETTINGS = ("max_num_batched_tokens", "scheduler_recv_interval", "batch_wait_timeout_iters")
COLUMNS = Columns(
    required=REQUIRED,
    known=tuple(dict.fromkeys((*SERVER_COLUMNS, *LAYOUT_COLUMNS, *REQUIRED, "lengths", *SETTINGS, *MEASURED))),
    measured=MEASURED,
)
UNIFORM_MEAN = 0.9
"""Lengths drawn from [0.8, 1.0] of the nominal ones have this mean."""


def read_runs(
    path: Path,
    engines: Mapping[str, EngineTraits],
    models: Path | None = None,
    own_gpus: Mapping[str, Gpu] = MappingProxyType({}),
) -> tuple[Run, ...]:
    """Read a CSV with the columns of `REQUIRED` and more; columns that are none of `COLUMNS` are passed over.

    `models`: a folder of config.json files, matched by name, that goes before the catalog; `own_gpus`: GPUs that do.

    Raises:
        InputError: every row and column that cannot be read; unknown models and GPUs are named once each.
    """
    return _with_clients(read_servers(path, COLUMNS, engines, models, _run, own_gpus))


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


def _run(row: Row, server: Server | None) -> Run | None:
    before = len(row.problems)
    isl, osl = row.number("isl"), row.number("osl")
    concurrency = row.number("concurrency")
    ttft_s, tpot_s = row.seconds("ttft_ms"), row.seconds("tpot_ms")
    lengths = row.lengths()
    if server is None or len(row.problems) > before:
        return None
    layout = row.layout(server.arch)
    if layout is None:
        return None
    version = row.text("engine_version")
    # the benchmark whose lengths are drawn so left versions out of its records at first, and the fit has such runs
    drawn = lengths == "uniform"
    mean = UNIFORM_MEAN if drawn else 1.0
    mean_osl = max(osl * mean, 1.0)
    precision = row.text("precision") or "bf16"
    said = ServerSettings(
        max_num_batched_tokens=row.whole_setting("max_num_batched_tokens"),
        kv_dtype=row.text("kv_dtype") or None,
        poll_steps=row.setting("scheduler_recv_interval"),
        hold_steps=row.setting("batch_wait_timeout_iters"),
    )
    if said.kv_dtype not in (None, AS_CHECKPOINT, *KV_BYTES):
        known = ", ".join((AS_CHECKPOINT, *KV_BYTES))
        row.problem(f"kv_dtype must be one of {known}, got {said.kv_dtype!r}")
    if len(row.problems) > before:
        return None
    recipe = ServerSettings()
    if drawn:
        recipe = recipe_settings(
            engine=server.engine.name,
            model=row.text("model"),
            gpu=server.gpu.name,
            precision=precision,
            isl=isl,
            osl=osl,
            gpus=layout.gpus,
            concurrency=concurrency,
        )
    settings = said.filled_from(recipe)
    return Run(
        id=row.text("id") or row.at,
        gpu=row.text("gpu"),
        engine=server.engine.name,
        engine_version=version,
        model=row.text("model"),
        precision=precision,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        entry=server.entry(layout, settings.kv_dtype, precision, version or (UNRECORDED if drawn else None)),
        same_lengths=lengths == "fixed",
        mean_isl=isl * mean,
        mean_osl=mean_osl,
        ttft_s=ttft_s,
        tpot_s=tpot_s if mean_osl > 1.0 else np.nan,  # what a client divides by no token is none's time
        batched_tokens=settings.max_num_batched_tokens or BATCHED_TOKENS,
        poll_steps=settings.poll_steps or 0.0,
        hold_steps=settings.hold_steps or 0.0,
        by_recipe=settings != said,
    )
