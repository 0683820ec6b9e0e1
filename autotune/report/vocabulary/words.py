"""What the figures are called on a page, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite

from autotune.engines import engine_title
from autotune.report.clusters import table_name
from autotune.scoring.joint_uncertainty import P10
from autotune.text.numbers import number
from autotune.tuning import PlanResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric as people read it."""

    name: str
    """Key of `PlanResult.metrics`."""
    title: str
    unit: str
    factor: float = 1.0
    """From SI to the unit."""
    sd: str = ""
    """Metric that holds its log standard deviation; empty: it is taken as known."""

    def of(self, plan: PlanResult) -> float:
        """The plan's value in the metric's unit."""
        return plan.metrics[self.name] * self.factor

    def interval(self, plan: PlanResult) -> tuple[float, float]:
        """p10 and p90 in the metric's unit: 80 % of what the calibration saw lies between."""
        spread = exp(P10 * plan.metrics[self.sd]) if self.sd else 1.0
        return self.of(plan) / spread, self.of(plan) * spread

    def shown(self, plan: PlanResult) -> str:
        """Value and unit."""
        return f"{number(self.of(plan))} {self.unit}"

    def shown_interval(self, plan: PlanResult) -> str:
        """`0.60–2.26`, without the unit."""
        low, high = self.interval(plan)
        return f"{number(low)}–{number(high)}"


_RATE = "throughput_log_sd"
METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric(name="total_tokens_per_s_per_gpu", title="Total throughput", unit="tok/s/GPU", sd=_RATE),
        Metric(name="output_tokens_per_s_per_gpu", title="Output throughput", unit="tok/s/GPU", sd=_RATE),
        Metric(name="total_tokens_per_s", title="Total throughput", unit="tok/s", sd=_RATE),
        Metric(name="output_tokens_per_s", title="Output throughput", unit="tok/s", sd=_RATE),
        Metric(name="requests_per_s", title="Requests served", unit="requests/s", sd=_RATE),
        Metric(name="ttft_s", title="TTFT, mean", unit="s", sd="ttft_log_sd"),
        Metric(name="ttft_longest_s", title="TTFT at the longest prompt", unit="s", sd="ttft_log_sd"),
        Metric(name="tpot_s", title="TPOT", unit="ms", factor=1e3, sd="tpot_log_sd"),
        Metric(name="usd_per_million_tokens", title="Cost", unit="USD per million tokens", sd=_RATE),
        Metric(name="gpus", title="GPUs", unit="GPUs"),
        Metric(name="memory_util_frac", title="GPU memory in use", unit="%", factor=100.0),
        Metric(name="gpu_util_frac", title="GPU busy", unit="%", factor=100.0),
    )
}
TTFT, TPOT = METRICS["ttft_longest_s"], METRICS["tpot_s"]
PER_GPU = METRICS["total_tokens_per_s_per_gpu"]

OPERATORS = {
    "attention_proj": "Attention projections",
    "attention_core": "Attention core",
    "dense_ffn": "Dense feed-forward",
    "router": "Router",
    "experts": "Routed experts",
    "shared_experts": "Shared experts",
    "norms": "Norms",
    "lm_head": "Output head",
    "tp_all_reduce": "All-reduce (TP)",
    "ep_exchange": "Expert exchange (EP)",
    "pp_send": "Send between stages (PP)",
}
TTFT_PARTS = {
    "front_end": "Front end",
    "own_prefill": "Own prefill",
    "running_step": "Step already running",
    "queue": "Queue",
    "kv_wait": "Wait for KV room",
    "kv_transfer": "KV transfer",
}
MEMORY = {
    "attention": "Attention weights",
    "dense_ffn": "Dense feed-forward weights",
    "router": "Router weights",
    "experts": "Expert weights",
    "shared_experts": "Shared expert weights",
    "norms": "Norms",
    "embedding": "Embedding",
    "lm_head": "Output head",
    "kv_cache": "KV cache",
    "activations": "Activations",
    "buffers": "Buffers",
    "reserve": "Reserve",
}
LIMITS = {
    "kv_capacity": "KV room for the longest request",
    "ttft_ms": "TTFT at the longest prompt",
    "tpot_ms": "TPOT",
    "memory_util_frac": "GPU memory in use",
    "min_total_tokens_per_s_per_gpu": "Throughput per GPU",
    "min_output_tokens_per_s_per_gpu": "Output throughput per GPU",
    "min_stage_tokens_per_s_per_gpu": "Throughput per GPU of a stage",
    "min_gpu_util_frac": "GPU busy",
    "min_p_meets": "Probability to keep every limit",
    "request_rate_per_s": "Requests served",
}


def within(title: str) -> str:
    """A title within a sentence: `output throughput`, but `TPOT`."""
    return f"{title[:1].lower()}{title[1:]}" if title[1:2].islower() else title


def plan_name(plan: PlanResult, *, dense: bool, several_engines: bool) -> str:
    """`R8 TP2 DP8 EP16`, with the engine where several compete."""
    name = table_name(plan, dense=dense)
    return f"{engine_title(plan.engine)} {name}" if several_engines else name


def same_run(one: PlanResult, other: PlanResult) -> bool:
    """Whether two results are of one plan with the same knobs."""
    return one.plan == other.plan and one.knobs == other.knobs


def percent(value: float | None, digits: int = 0) -> str:
    """A share; a dash where there is none."""
    return "–" if value is None or not isfinite(value) else f"{value:.{digits}%}"


def signed(value: float | None) -> str:
    """A relative difference: `+37.9 %` without the space; a dash where there is none."""
    if value is None or not isfinite(value):
        return "–"
    return f"{value:+,.0%}" if abs(value) >= 10.0 else f"{value:+.1%}".replace("-", "−")


def probability(value: float | None) -> str:
    """A probability; never 0 % or 100 % for what is merely close."""
    if value is None:
        return "–"
    if value > 0.995:
        return "> 99%"
    return "< 1%" if value < 0.005 else f"{value:.0%}"


def times(factor: float) -> str:
    """A factor: `×0.67`."""
    return f"×{factor:.2f}".rstrip("0").rstrip(".")
