"""The metrics of a plan as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from autotune.scoring.joint_uncertainty import P10
from autotune.text.numbers import number
from autotune.tuning import PlanResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric of `PlanResult.metrics` as people read it."""

    name: str
    """Key of `PlanResult.metrics`."""
    title: str
    unit: str
    heading: str = ""
    """Title and unit above a narrow column; empty: it stands in no such column."""
    factor: float = 1.0
    """From SI to the unit."""
    sd: str = ""
    """Metric that holds its log standard deviation; empty: it is taken as known."""

    @property
    def label(self) -> str:
        """Title and unit: `TPOT, ms`."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def text(self, value: float | None) -> str:
        """A value, given in SI, in the metric's unit."""
        return number(None if value is None else value * self.factor)

    def of(self, plan: PlanResult) -> float:
        """The plan's value in the metric's unit."""
        return plan.metrics[self.name] * self.factor

    def interval(self, plan: PlanResult) -> tuple[float, float]:
        """p10 and p90 in the metric's unit: 80 % of what the calibration saw lies between."""
        spread = exp(P10 * plan.metrics[self.sd]) if self.sd else 1.0
        return self.of(plan) / spread, self.of(plan) * spread

    def shown(self, plan: PlanResult) -> str:
        """Value, unit and interval: `1.26 s (0.54–2.96)`."""
        return f"{number(self.of(plan))} {self.unit}" + (f" ({self.shown_interval(plan)})" if self.sd else "")

    def shown_interval(self, plan: PlanResult, between: str = "–") -> str:
        """`0.6–2.26`, without the unit."""
        return between.join(number(end) for end in self.interval(plan))


_RATE, _TTFT, _TPOT = "throughput_log_sd", "ttft_log_sd", "tpot_log_sd"
METRICS: Mapping[str, Metric] = {
    name: Metric(name=name, title=title, unit=unit, heading=heading, factor=factor, sd=sd)
    for name, title, unit, heading, factor, sd in (
        ("total_tokens_per_s_per_gpu", "Total throughput", "tok/s/GPU", "tok/s/GPU", 1.0, _RATE),
        ("output_tokens_per_s_per_gpu", "Output throughput", "tok/s/GPU", "out/s/GPU", 1.0, _RATE),
        ("total_tokens_per_s", "Total throughput", "tok/s", "tok/s", 1.0, _RATE),
        ("output_tokens_per_s", "Output throughput", "tok/s", "out/s", 1.0, _RATE),
        ("stage_tokens_per_s_per_gpu", "Throughput per GPU of a stage", "tok/s", "", 1.0, _RATE),
        ("requests_per_s", "Requests served", "requests/s", "req/s", 1.0, _RATE),
        ("ttft_s", "Mean TTFT", "s", "TTFT s", 1.0, _TTFT),
        ("ttft_longest_s", "TTFT at the longest prompt", "s", "TTFT s", 1.0, _TTFT),
        ("tpot_s", "TPOT", "ms", "TPOT ms", 1e3, _TPOT),
        ("usd_per_million_tokens", "Cost", "USD per million tokens", "USD/Mtok", 1.0, _RATE),
        ("gpus", "GPUs", "GPUs", "GPUs", 1.0, ""),
        ("memory_util_frac", "GPU memory in use", "%", "mem", 100.0, ""),
        ("gpu_util_frac", "GPU busy", "%", "GPU", 100.0, ""),
        ("compute_util_frac", "Share of peak FLOP/s", "%", "", 100.0, ""),
        ("bandwidth_util_frac", "Share of peak memory bandwidth", "%", "", 100.0, ""),
        ("kv_capacity_sequences", "Requests that the KV cache holds", "", "", 1.0, ""),
    )
}
TTFT, TPOT = METRICS["ttft_longest_s"], METRICS["tpot_s"]
PER_GPU, OUT_PER_GPU = METRICS["total_tokens_per_s_per_gpu"], METRICS["output_tokens_per_s_per_gpu"]
COST = METRICS["usd_per_million_tokens"]
