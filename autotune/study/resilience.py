"""The table of a study file that says what has to be survived, and how often things break. No effect on the ranking.

How often: interruptions of 54 days of training on 16,384 H100 in 2,048 hosts ("The Llama 3 Herd of Models", Meta 2024,
table 5). Of GPUs: faulty 148, HBM3 72, SRAM 19, system processor 17, silent corruption 6, thermal interface 6, in all
268 in 21.2 million GPU-hours. Of hosts: maintenance 32, NIC 7, SSD 3, power supply 3, chassis 2, IO board 2, CPU 2,
memory 2, in all 53 in 2.65 million host-hours. Of switches and cables: 35 in the 1.33 million hours of 1,024 racks of
two hosts. How long a repair takes stands in no source that we know of, and is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from autotune.study import field_types as ft

GPU_MTBF_S = 79_200 * 3600.0
NODE_MTBF_S = 50_100 * 3600.0
RACK_MTBF_S = 37_900 * 3600.0
SOURCE = "Meta, The Llama 3 Herd of Models, table 5"
DAY_S = 24 * 3600.0
DEFAULT_NODES_PER_RACK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Resilience:
    """What a service has to survive. `autotune survive` plans for it; no effect on how plans are ranked."""

    __pydantic_config__ = ft.TABLE
    survive: Literal["gpu", "node", "rack"] = ft.entry(
        "what may be lost at any time: a GPU, a host, or a rack; default node", "node", assumed="{}"
    )
    k: ft.Whole = ft.entry("how many of them at once; default 1", 1, ge=1, le=1000, assumed="{}")
    degraded_load_frac: ft.Fraction = ft.entry(
        "share of the load that has to be served within the limits with so much lost, 0 to 1; default 1",
        1.0,
        assumed="{:g}",
    )
    degraded_latency_factor: Annotated[ft.Real, Field(ge=1, le=100)] = ft.entry(
        "limits on latencies may be so many times as large meanwhile; default 1", 1.0, assumed="{:g}"
    )
    nodes_per_rack: Annotated[ft.Whole, Field(ge=1, le=1000)] = ft.entry(
        f"hosts of one rack; default {DEFAULT_NODES_PER_RACK}, or those of an NVLink domain that is larger than a host",
        0,
        assumed="{}",
    )
    gpu_mtbf_s: ft.PositiveHours = ft.entry(
        "mean time between failures of one GPU, hours; default 79,200",
        GPU_MTBF_S,
        key="gpu_mtbf_h",
        assumed=lambda s: f"{s / 3600:,.0f} h ({SOURCE})",
    )
    node_mtbf_s: ft.PositiveHours = ft.entry(
        "the same of one host without its GPUs, hours; default 50,100",
        NODE_MTBF_S,
        key="node_mtbf_h",
        assumed=lambda s: f"{s / 3600:,.0f} h ({SOURCE})",
    )
    rack_mtbf_s: ft.PositiveHours = ft.entry(
        "the same of one rack: its switches, cables and power, hours; default 37,900",
        RACK_MTBF_S,
        key="rack_mtbf_h",
        assumed=lambda s: f"{s / 3600:,.0f} h ({SOURCE})",
    )
    gpu_repair_s: ft.PositiveHours = ft.entry(
        "until a failed GPU serves again, hours; default 24",
        DAY_S,
        key="gpu_repair_h",
        assumed=lambda s: f"{s / 3600:g} h",
    )
    node_repair_s: ft.PositiveHours = ft.entry(
        "until a failed host serves again, hours; default 24",
        DAY_S,
        key="node_repair_h",
        assumed=lambda s: f"{s / 3600:g} h",
    )
    rack_repair_s: ft.PositiveHours = ft.entry(
        "until a failed rack serves again, hours; default 4",
        4 * 3600.0,
        key="rack_repair_h",
        assumed=lambda s: f"{s / 3600:g} h",
    )
    detect_s: ft.NotNegative = ft.entry(
        "until a loss is noticed, its requests sent elsewhere and its replicas started anew, s; default 30",
        30.0,
        assumed="{:g} s",
    )
