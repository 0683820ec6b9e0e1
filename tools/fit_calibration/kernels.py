"""Laws of single kernels, fitted on the kernel tables with a robust loss on log error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit, logit

from costmodel.hardware import load_gpu
from tools.fit_calibration.tables import Sample, read_collectives, read_deepep, read_kernels

Floats = NDArray[np.float64]
SEED = 20251123
LIMIT = 6000
GRAPH_BACKENDS = {"trtllm": "", "vllm": "vllm_graph", "sglang": "sglang_graph"}
START = {"t0_s": 5e-6, "math_eff": 0.6, "hbm_eff": 0.7, "overlap_loss": 0.3, "pad_rows": 16.0, "row_passes": 4.0}


def predict(values: Floats, math_s: Floats, hbm_s: Floats, pad_s: Floats, pass_s: Floats) -> Floats:
    """The law of `costmodel.step.kernel_laws` for (t0, math_eff, hbm_eff, overlap_loss, pad_rows, row_passes)."""
    math, hbm = (math_s + values[4] * pad_s) / values[1], (hbm_s + values[5] * pass_s) / values[2]
    longer = np.maximum(math, hbm)
    return values[0] + longer + values[3] * (math + hbm - longer)


def _unpack(x: Floats) -> Floats:
    return np.array([np.exp(x[0]), expit(x[1]), expit(x[2]), expit(x[3]), np.exp(x[4]), np.exp(x[5])])


def fit_law(samples: Sequence[Sample]) -> dict[str, Any]:
    """The parameters of one kernel, with its error on the samples and on every third shape left out."""
    names = ("seconds", "math_s", "hbm_s", "pad_s", "pass_s")
    table = np.array([[getattr(s, f) for f in names] for s in samples])
    rows = np.arange(len(samples))
    held = rows % 3 == 2
    tested = _errors(_solve(table[~held]), table[held])
    values = _solve(table)
    return {
        "t0_s": _round(values[0]),
        "math_eff": _round(values[1]),
        "hbm_eff": _round(values[2]),
        "overlap_loss": _round(values[3]),
        **({"pad_rows": _round(values[4]), "row_passes": _round(values[5])} if table[:, 3].any() else {}),
        "rows": len(samples),
        "held_out_mape": _round(float(tested.mean())),
        "held_out_median": _round(float(np.median(tested))),
    }


def _solve(table: Floats) -> Floats:
    seconds, *parts_s = table.T
    efficiencies = (logit(START[k]) for k in ("math_eff", "hbm_eff", "overlap_loss"))
    start = np.array([np.log(START["t0_s"]), *efficiencies, np.log(START["pad_rows"]), np.log(START["row_passes"])])
    weak = 0.02  # keeps a parameter that the rows say nothing about at its starting value

    def residuals(x: Floats) -> Floats:
        error = np.log(predict(_unpack(x), *parts_s) / seconds)
        return np.concatenate([error / np.sqrt(len(seconds)), weak * (x - start)])

    low, high = start - 6.0, start + 6.0
    return _unpack(
        least_squares(residuals, start, loss="soft_l1", f_scale=0.2 / np.sqrt(len(seconds)), bounds=(low, high)).x
    )


def _errors(values: Floats, table: Floats) -> Floats:
    seconds, *parts_s = table.T
    return np.abs(predict(values, *parts_s) / seconds - 1.0)


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def fit_kernels(tables: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Laws by (generation, engine), then by law."""
    out: dict[tuple[str, str], dict[str, Any]] = {}
    for (generation, engine, law), samples in read_kernels(tables, LIMIT, SEED).items():
        out.setdefault((generation, engine), {})[law] = fit_law(samples)
    for key, laws in fit_all_reduce(tables).items():
        out[key]["all_reduce"] = laws
    exchange = fit_deepep(tables)
    for (generation, _), laws in out.items():
        laws["expert_exchange"] = exchange[generation]
    return out


def fit_all_reduce(tables: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Start time of two ranks, seconds of each further rank, share of the link's peak."""
    rows = read_collectives(tables / "allreduce_custom.csv.gz", GRAPH_BACKENDS)
    out = {}
    for key in sorted({(load_gpu(gpu).generation, engine) for gpu, engine, *_ in rows}):
        mine = [r for r in rows if (load_gpu(r[0]).generation, r[1]) == key]
        link = np.array([load_gpu(r[0]).scaleup_bytes_per_s for r in mine])
        ranks, size, seconds = (np.array([r[i] for r in mine]) for i in (2, 3, 4))

        def residuals(
            x: Floats,
            ranks: Floats = ranks,
            size: Floats = size,
            link: Floats = link,
            seconds: Floats = seconds,
        ) -> Floats:
            t = np.exp(x[0]) + np.exp(x[1]) * (ranks - 2) + 2 * (ranks - 1) / ranks * size / (link * expit(x[2]))
            return np.asarray(np.log(t / seconds))

        x = least_squares(residuals, np.array([np.log(4e-6), np.log(3e-7), 0.5]), loss="soft_l1", f_scale=0.1).x
        out[key] = {
            "t0_s": _round(float(np.exp(x[0]))),
            "rank_s": _round(float(np.exp(x[1]))),
            "link_eff": _round(float(expit(x[2]))),
            "rows": len(mine),
            "mape": _round(float(np.abs(np.exp(residuals(x)) - 1).mean())),
        }
    return out


def fit_deepep(tables: Path) -> dict[str, dict[str, Any]]:
    """Dispatch and combine of DeepEP: low-latency kernels, and normal ones with their extra start time.

    Low latency sends a copy per expert; normal sends one copy per node and forwards inside. Both fill the NIC.
    """
    low, normal = (
        read_deepep(tables / "deepep_low_latency.csv.gz"),
        read_deepep(tables / "deepep_normal.csv.gz"),
    )
    out = {}
    for generation in ("blackwell", "hopper"):
        rows = _exchange_rows(low, generation, "low") + _exchange_rows(normal, generation, "normal")
        table = np.array([r[:7] for r in rows])

        def residuals(x: Floats, columns: Floats = table) -> Floats:
            nodes, inside, outside, is_normal, link, nic, seconds = columns.T
            hops = np.log2(nodes)
            start = np.exp(x[0]) + is_normal * np.exp(x[1])
            between = (nodes > 1) * (np.exp(x[2]) + np.exp(x[3]) * hops) + outside / (nic * expit(x[5]))
            within = inside / (link * expit(x[4]))
            return np.asarray(np.log((start + np.maximum(within, between)) / seconds))

        guess = np.array([np.log(1.4e-5), np.log(4e-5), np.log(9e-6), np.log(2.5e-6), 0.0, 2.0])
        bound = np.array([1.5, 1.5, 1.0, 1.0, 3.0, 2.5])
        fitted = least_squares(residuals, guess, loss="soft_l1", f_scale=0.1, bounds=(guess - bound, guess + bound))
        x = fitted.x
        out[generation] = {
            "t0_s": _round(float(np.exp(x[0]))),
            "normal_t0_s": _round(float(np.exp(x[1]))),
            "remote_t0_s": _round(float(np.exp(x[2]))),
            "remote_hop_s": _round(float(np.exp(x[3]))),
            "link_eff": _round(float(expit(x[4]))),
            "nic_eff": _round(float(expit(x[5]))),
            "rows": len(rows),
            "nodes_measured": sorted({int(n) for n in table[:, 0]}),
            "mape": _round(float(np.abs(np.exp(residuals(x)) - 1).mean())),
        }
    # Blackwell's tables end at one node: what leaves the node is taken from Hopper's, the NIC being the same
    for name in ("remote_t0_s", "remote_hop_s", "nic_eff"):
        out["blackwell"][name] = out["hopper"][name]
    return out


def _exchange_rows(rows: list[dict[str, str]], generation: str, mode: str) -> list[tuple[float, ...]]:
    out: list[tuple[float, ...]] = []
    for row in rows:
        gpu = load_gpu(row["gpu"])
        if gpu.generation != generation:
            continue
        nodes, tokens = float(row["node_num"]), float(row["num_token"])
        top_k, hidden = float(row["num_topk"]), float(row["hidden_size"])
        if mode == "normal" and row["dispatch_sms"] not in ("20", "24"):
            continue
        ranks = 8.0 * nodes
        near, far = _copies(ranks, nodes, top_k, dedupe=mode == "normal")
        for phase, size in (("dispatch", 1.0), ("combine", 2.0)):
            if mode == "low":
                seconds = float(row[f"{phase}_avg_t_us"]) * 1e-6
            else:
                seconds = (float(row[f"{phase}_transmit_us"]) + float(row[f"{phase}_notify_us"])) * 1e-6
            volume = tokens * hidden * size
            out.append(
                (
                    nodes,
                    near * volume,
                    far * volume,
                    float(mode == "normal"),
                    gpu.scaleup_bytes_per_s,
                    gpu.scaleout_bytes_per_s,
                    seconds,
                )
            )
    return out


def _copies(ranks: float, nodes: float, top_k: float, *, dedupe: bool) -> tuple[float, float]:
    if dedupe:
        hit = ranks * (1 - (1 - 1 / ranks) ** top_k)
        far = nodes * (1 - (1 - 1 / nodes) ** top_k) * (1 - 1 / nodes)
        return hit * (1 - 1 / ranks), far
    return top_k * (1 - 1 / ranks), top_k * (1 - 1 / nodes)
