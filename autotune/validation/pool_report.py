"""What `autotune validate` says of a file of disaggregated runs, as one document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autotune.validation.metrics import mean_tau
from autotune.validation.report import Target, contradictions_told, errors_by, errors_over, groups_of
from autotune.validation.slo import SloRuns, SloScore, reliability, slo_task
from costmodel.calibration.measured_cells import arch_key
from costmodel.disaggregated.closed_loop import ClosedLoop
from costmodel.disaggregated.pool_calibration import pool_calibration
from costmodel.measured.implausible import contradiction_of_pools
from costmodel.measured.pool_runs import PoolRun, throughput_per_gpu
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout


def pool_runs_document(runs: Sequence[PoolRun], settled: ClosedLoop, of_file: Sequence[str] = ()) -> dict[str, Any]:
    """Coverage, errors by slice, rankings and the SLO task.

    `of_file`: what else is to be said, of the file that the runs are from.
    """
    pair, count = settled.pair, len(runs)
    ttft, tpot = np.array([r.ttft_s for r in runs]), np.array([r.tpot_s for r in runs])
    measured = throughput_per_gpu(runs, ttft, tpot)
    predicted = throughput_per_gpu(runs, pair.ttft_s, pair.tpot_s)
    targets = {
        "ttft": Target(ttft, pair.ttft_s, pair.ttft_log_sd),
        "tpot": Target(tpot, pair.tpot_s, pair.tpot_log_sd),
        "throughput_per_gpu": Target(measured, predicted, pair.throughput_log_sd),
    }
    slices = {
        "gpu": [r.gpu for r in runs],
        "engine": [r.engine for r in runs],
        "model": [r.model for r in runs],
        "lengths": [f"{r.isl:g}/{r.osl:g}" for r in runs],
        "decode_layout": [layout_kind(r.decode.layout) for r in runs],
        "ttft_note": [r.ttft_note or "no note" for r in runs],
    }
    columns = _columns(runs, pair.ttft_s, pair.tpot_s, np.broadcast_to(pair.tpot_log_sd, (count,)))
    lists = groups_of(runs)
    tau_speed, groups = mean_tau(predicted, measured, lists)
    tau_tpot, _ = mean_tau(pair.tpot_s, tpot, lists)
    done = np.isfinite(pair.ttft_s) & np.isfinite(pair.tpot_s)
    return {
        "disaggregated_runs": count,
        "coverage": float(done.mean()),
        "assumptions": [*of_file, *_assumptions(runs)],
        "overall": errors_over(targets, list(range(count))),
        **{f"by_{name}": errors_by(targets, keys) for name, keys in slices.items()},
        "kendall_tau": {"throughput_per_gpu": tau_speed, "tpot": tau_tpot, "groups": groups},
        "slo_task": {name: asdict(score) for name, score in slo_task(columns, lists).items()},
        "reliability": [asdict(r) for r in reliability(columns, lists)],
    }


def slo_pools(runs: Sequence[PoolRun], *, ttft_s: Floats, tpot_s: Floats, tpot_log_sd: Floats) -> dict[str, SloScore]:
    """What choosing by these predictions, of shape `(num_runs,)`, loses under a TPOT limit."""
    return slo_task(_columns(runs, ttft_s, tpot_s, tpot_log_sd), groups_of(runs))


def layout_kind(layout: Layout) -> str:
    """How the workers of a pool split attention and experts."""
    if layout.attn_dp > 1:
        return "attention-DP"
    return "TP with EP" if layout.moe_ep > 1 else "plain TP"


def _columns(runs: Sequence[PoolRun], ttft_s: Floats, tpot_s: Floats, tpot_log_sd: Floats) -> SloRuns:
    ttft, tpot = np.array([r.ttft_s for r in runs]), np.array([r.tpot_s for r in runs])
    return SloRuns(
        tpot_s=tpot,
        throughput=throughput_per_gpu(runs, ttft, tpot),
        predicted_tpot_s=tpot_s,
        predicted_throughput=throughput_per_gpu(runs, ttft_s, tpot_s),
        tpot_log_sd=tpot_log_sd,
    )


def _assumptions(runs: Sequence[PoolRun]) -> list[str]:
    """What the file leaves open and how it was filled in, and which runs cannot be what they say."""
    open_slots = sum(math.isinf(r.decode_max_num_seqs) for r in runs)
    said = [f"{len(runs):,} closed loops that send all their requests in flight at once, ten times as many in all"]
    if open_slots:
        said.append(f"{open_slots:,} runs without decode_max_num_seqs: no limit but KV room")
    measured = pool_calibration().measured
    inside = sum(
        run.decode.cluster.gpu.name in measured["gpu"]
        and arch_key(run.decode.arch) in measured["model"]
        and run.decode.engine.name in measured["engine"]
        for run in runs
    )
    if inside:
        said.append(
            f"{inside:,} of {len(runs):,} runs are of a GPU, a model and an engine that the shipped calibration of "
            "pools was fitted on: where they are the runs of that fit, their errors are what is left after it"
        )
    against = [found for run in runs if (found := contradiction_of_pools(run)) is not None]
    return [*said, *contradictions_told(against, len(runs))]
