"""Replays of logs against the simulation, request by request: `python -m benchmarks.replays FOLDER`.

Each NAME.csv holds requests (`arrival_s, first_token_s, last_token_s, prompt_tokens, output_tokens`), and NAME.json
beside it how the server was started. One factor on the length of steps, chosen so that the mean time end to end is
right, stands for what the calibration does not know of the GPU; what is compared is how the queue behaves.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotune.engines import policies_by_name, traits_by_name
from costmodel.arch import load_model
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.hardware import Cluster
from costmodel.hardware.catalog import gpu_from_table, load_gpu
from costmodel.measured.runs import MEMORY_FRACTION
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout
from costmodel.serving.load import Load
from costmodel.simulation.requests import Requests
from costmodel.simulation.server import server_model
from costmodel.simulation.simulate import ServerModel, simulate

GPUS = {
    # NVIDIA's datasheet of the RTX PRO 6000 Blackwell, dense; PCIe 5.0 x16
    "RTXPRO6000": {
        "name": "rtx_pro_6000",
        "generation": "blackwell",
        "peak_tflops": {"bf16": 503.8, "fp8": 1007.6, "fp4": 2015.2},
        "hbm_gib": 95.6,
        "hbm_tb_per_s": 1.792,
        "scaleup_gb_per_s": 64.0,
        "scaleup_latency_us": 5.0,
        "scaleout_gb_per_s": 25.0,
    }
}
"""GPUs of replays that the catalog does not have."""
PERCENTILES = (50, 95, 99)
HALVINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A served log; times in seconds, shape `(num_requests,)`."""

    model: ServerModel
    requests: Requests
    ttft_s: Floats
    e2e_s: Floats


def main() -> None:
    """Print the error of each percentile of each replay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print("replay | factor on steps | " + " | ".join(f"{name} p{p}" for name in ("TTFT", "E2E") for p in PERCENTILES))
    for path in sorted(parser.parse_args().folder.glob("*.csv")):
        replay = _read(path)
        pace = _pace(replay)
        served = simulate(replay.model.paced(pace), replay.requests).served
        errors = [
            np.percentile(ours, p) / np.percentile(theirs, p) - 1.0
            for ours, theirs in ((served.ttft_s, replay.ttft_s), (served.e2e_s, replay.e2e_s))
            for p in PERCENTILES
        ]
        print(f"{path.stem} | {pace:.3f} | " + " | ".join(f"{error:+.1%}" for error in errors))


def _read(path: Path) -> Replay:
    server = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    arrival_s, first_s, last_s = (
        np.array([float(row[name]) for row in rows]) for name in ("arrival_s", "first_token_s", "last_token_s")
    )
    prompt, output = (np.array([int(row[name]) for row in rows]) for name in ("prompt_tokens", "output_tokens"))
    load = Load(
        isl=np.array([prompt.mean()]),
        osl=np.array([output.mean()]),
        prefix_hit_frac=np.zeros(1),
        concurrency=np.ones(1),
        batched_tokens=np.array([float(server["max_num_batched_tokens"])]),
        max_num_seqs=np.array([float(server["max_num_seqs"])]),
    )
    model = server_model(
        PlanBatch.of([_entry(server)]),
        load,
        policy=policies_by_name()[server["engine"]],
        longest_prompt=np.array([float(prompt.max())]),
        memory_fraction=np.array([MEMORY_FRACTION]),
    )
    requests = Requests(arrival_s=arrival_s, prompt=prompt, cached=np.zeros_like(prompt), output=output)
    return Replay(model=model, requests=requests, ttft_s=first_s - arrival_s, e2e_s=last_s - arrival_s)


def _entry(server: dict[str, Any]) -> PlanEntry:
    """The plan of a replay: one replica of tensor-parallel ranks."""
    arch, width = load_model(server["model"]), int(server["attn_tp"])
    named = server["gpu"]
    gpu = gpu_from_table(GPUS[named], named) if named in GPUS else load_gpu(named)
    return PlanEntry(
        arch=arch,
        cluster=Cluster(gpus=width, gpu=gpu, gpus_per_node=gpu.gpus_per_node),
        engine=traits_by_name()[server["engine"]],
        layout=Layout(
            replicas=1,
            pp=1,
            attn_tp=width,
            attn_dp=1,
            moe_tp=width if arch.is_moe else 1,
            moe_ep=1,
            stage_layers=(arch.num_hidden_layers,),
        ),
        kv_dtype=None,
        engine_version=server.get("engine_version", ""),
    )


def _pace(replay: Replay) -> float:
    """The factor on steps with which the mean time end to end is as measured."""
    low, high = 0.2, 5.0
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low * high))
        served = simulate(replay.model.paced(middle), replay.requests).served
        low, high = (middle, high) if served.e2e_s.mean() < replay.e2e_s.mean() else (low, middle)
    return float(np.sqrt(low * high))


if __name__ == "__main__":
    main()
