"""Reading files of measured disaggregated runs: CSV, columns by name.

gpu, engine, model, isl, osl, concurrency        which deployment and load; required, with both pools' attn_tp
lengths, precision, gemm_dtype, moe_dtype, kv_dtype, engine_version              as in files of single servers
{prefill,decode}_workers                         engine instances of the pool; default 1
{prefill,decode}_{pp,attn_tp,attn_dp,moe_tp,moe_ep}                              layout of one worker
{prefill,decode}_max_num_seqs                    sequences at once, per attention-DP rank; empty: not known, no limit
prefill_max_num_batched_tokens                   prompt tokens of a pass, per attention-DP rank
decode_redundant_experts                         expert replicas over a worker, beyond the model's own
ttft_ms, tpot_ms, ttft_note                      what was measured, means; what TTFT is made of
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from costmodel.arch import Arch
from costmodel.dtypes import KV_BYTES
from costmodel.engine import EngineTraits
from costmodel.hardware import Gpu
from costmodel.measured.csv_columns import Columns, read_columns
from costmodel.measured.csv_fields import (
    LAYOUT_COLUMNS,
    SERVER_COLUMNS,
    Row,
    Server,
    read_servers,
)
from costmodel.measured.pool_runs import PoolRun
from costmodel.measured.runs import BATCHED_TOKENS
from costmodel.measured.runs_csv import UNIFORM_MEAN
from costmodel.plan.layout import Layout

REQUIRED = ("gpu", "engine", "model", "isl", "osl", "concurrency", "prefill_attn_tp", "decode_attn_tp")
MEASURED = ("ttft_ms", "tpot_ms")
ROLES = ("prefill", "decode")
POOL_COLUMNS = ("workers", *LAYOUT_COLUMNS, "max_num_seqs", "redundant_experts")
COLUMNS = Columns(
    required=REQUIRED,
    known=tuple(
        dict.fromkeys(
            (
                *SERVER_COLUMNS,
                *REQUIRED,
                "lengths",
                *(f"{role}_{name}" for role in ROLES for name in POOL_COLUMNS),
                "prefill_max_num_batched_tokens",
                *MEASURED,
                "ttft_note",
            )
        )
    ),
    measured=MEASURED,
)


def has_pools(path: Path) -> bool:
    """Whether a file's columns are those of disaggregated runs. Raises `InputError` where it cannot be read."""
    return any(name.startswith(("prefill_attn_", "decode_attn_")) for name in read_columns(path))


def read_pool_runs(
    path: Path,
    engines: Mapping[str, EngineTraits],
    models: Path | None = None,
    own_gpus: Mapping[str, Gpu] = MappingProxyType({}),
) -> tuple[PoolRun, ...]:
    """Read a CSV with the columns of `REQUIRED` and more; columns that are none of `COLUMNS` are passed over.

    `models`: a folder of config.json files, matched by name, that goes before the catalog; `own_gpus`: GPUs that do.

    Raises:
        InputError: every row and column that cannot be read; unknown models and GPUs are named once each.
    """
    return read_servers(path, COLUMNS, engines, models, _run, own_gpus)


def _run(row: Row, server: Server | None) -> PoolRun | None:
    before = len(row.problems)
    isl, osl, concurrency = (row.number(name) for name in ("isl", "osl", "concurrency"))
    ttft_s, tpot_s = row.seconds("ttft_ms"), row.seconds("tpot_ms")
    lengths = row.lengths()
    budget = float(row.whole("prefill_max_num_batched_tokens", int(BATCHED_TOKENS)))
    seats = [
        float(row.whole(f"{role}_max_num_seqs")) if row.text(f"{role}_max_num_seqs") else math.inf for role in ROLES
    ]
    kv_dtype = row.text("kv_dtype") or None
    if kv_dtype not in (None, *KV_BYTES):
        row.problem(f"kv_dtype must be one of {', '.join(KV_BYTES)}, got {kv_dtype!r}")
    if server is None or len(row.problems) > before:
        return None
    layouts = [_layout(row, role, server.arch) for role in ROLES]
    if len(row.problems) > before:
        return None
    precision = row.text("precision") or "bf16"
    mean = UNIFORM_MEAN if lengths == "uniform" else 1.0
    prefill, decode = (
        server.entry(layout, kv_dtype, precision, row.text("engine_version"))
        for layout in layouts
        if layout is not None
    )
    return PoolRun(
        id=row.text("id") or row.at,
        gpu=row.text("gpu"),
        engine=server.engine.name,
        engine_version=row.text("engine_version"),
        model=row.text("model"),
        precision=precision,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        prefill=prefill,
        decode=decode,
        same_lengths=lengths == "fixed",
        mean_isl=isl * mean,
        mean_osl=max(osl * mean, 1.0),
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        prefill_batched_tokens=budget,
        prefill_max_num_seqs=seats[0],
        decode_max_num_seqs=seats[1],
        ttft_note=row.text("ttft_note"),
    )


def _layout(row: Row, role: str, arch: Arch) -> Layout | None:
    """All workers of a pool: replicas of the layout of one."""
    cells = {name.removeprefix(f"{role}_"): cell for name, cell in row.cells.items() if name.startswith(f"{role}_")}
    own = replace(row, cells=cells, at=f"{row.at}: {role}")
    found, workers = own.layout(arch), own.whole("workers", 1)
    spare = own.text("redundant_experts") or "0"
    if not spare.isdigit():
        row.problem(f"{role}_redundant_experts must be a whole number, got {spare!r}")
        return None
    if found is None:
        return None
    return replace(found, replicas=found.replicas * workers, redundant_experts=int(spare))
