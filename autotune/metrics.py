"""The figures of a plan, one row each: what a metric is called, its unit, which way is better, how sure it is.

Objectives, Pareto goals, comparisons, ledgers, documents and pages read this table; a metric is added by one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Flag, auto
from math import exp, inf
from typing import Protocol

from autotune.text.numbers import number
from costmodel.estimate.normal import Z90

MAXIMIZE, MINIMIZE = "maximize", "minimize"
TTFT_SD, TPOT_SD, RATE_SD = "ttft_log_sd", "tpot_log_sd", "throughput_log_sd"
LOG_SDS = (TTFT_SD, TPOT_SD, RATE_SD)
"""Standard deviations of log(measured / estimate), which a plan keeps beside its metrics."""
RATE_P10, RATE_P90 = "throughput_p10_frac", "throughput_p90_frac"
"""Ends of the likely range of what is served over its estimate, which a plan keeps too: at a request rate no more is
served than comes (`costmodel.estimate.result.served_range`)."""


class Use(Flag):
    """What reads a metric beside the result that holds it."""

    OBJECTIVE = auto()
    """A study may ask for the best of it."""
    COMPARED = auto()
    """It has a row where two plans are compared."""
    BASELINE = auto()
    """A plan says how far it is from the baseline's."""
    LEDGER = auto()
    """An entry of re-tuning keeps it."""


NOT_USED = Use(0)


class Measured(Protocol):
    """Anything that keeps figures by metric and log standard deviation, as a `PlanResult` does."""

    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a plan."""

    name: str
    """Field of `Estimate` and key of `PlanResult.metrics`; SI."""
    title: str
    """What it is called on a page."""
    unit: str
    """As people read it; empty: a plain count."""
    heading: str = ""
    """Title and unit above a narrow column; empty: it stands in no such column."""
    factor: float = 1.0
    """From SI to `unit`."""
    better: str = ""
    """`maximize` or `minimize`; empty: neither more nor less of it is better in itself."""
    log_sd: str = ""
    """The one of `LOG_SDS` that is its error; empty: it is taken as known, or the model has no error for it."""
    meaning: str = ""
    """What it is in the words of a report's claim; empty: `autotune evaluate` has no quantity of this name."""
    uses: Use = NOT_USED
    """Where it is asked for or shown."""
    priced: bool = False
    """Whether it is in US dollars, so that it is known only where every GPU has a price."""
    simulated: bool = False
    """Whether it is known only of plans whose requests were simulated one by one."""
    of_served: bool = False
    """Whether it goes with what is served, so that at a request rate what comes bounds it."""

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that larger is better. Raises `ValueError` where neither is better."""
        if not self.better:
            raise ValueError(f"a metric that is ranked must have a better side, got {self.name}")
        return 1.0 if self.better == MAXIMIZE else -1.0

    @property
    def label(self) -> str:
        """Title and unit: `TPOT, ms`."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def text(self, value: float | None) -> str:
        """A value, given in SI, in the metric's unit; `∞` where it grows without bound."""
        return "∞" if value == inf else number(None if value is None else value * self.factor)

    def of(self, plan: Measured) -> float:
        """The plan's value in the metric's unit."""
        return plan.metrics[self.name] * self.factor

    def likely_fracs(self, plan: Measured) -> tuple[float, float]:
        """p10 and p90 over the plan's value: 80 % of what the calibration saw lies between; alike where it is known."""
        if self.of_served:
            low, high = plan.metrics[RATE_P10], plan.metrics[RATE_P90]
            return (low, high) if self.better == MAXIMIZE else (1.0 / high, 1.0 / low)
        spread = exp(Z90 * plan.metrics[self.log_sd]) if self.log_sd else 1.0
        return 1.0 / spread, spread

    def interval(self, plan: Measured) -> tuple[float, float]:
        """p10 and p90 in the metric's unit."""
        low, high = self.likely_fracs(plan)
        return self.of(plan) * low, self.of(plan) * high

    def known(self, plan: Measured) -> bool:
        """Whether it has no range: what is surely served of a request rate is what comes."""
        low, high = self.likely_fracs(plan)
        return low == high

    def shown(self, plan: Measured) -> str:
        """Value, unit and interval: `1.26 s (0.54–2.96)`."""
        return f"{number(self.of(plan))} {self.unit}" + ("" if self.known(plan) else f" ({self.shown_interval(plan)})")

    def shown_interval(self, plan: Measured, between: str = "–") -> str:
        """`0.6–2.26`, without the unit."""
        return between.join(number(end) for end in self.interval(plan))


PER_GPU, GPUS = "total_tokens_per_s_per_gpu", "gpus"
GOODPUT = "goodput_requests_per_s_per_gpu"
COST, OUTPUT_COST = "usd_per_million_tokens", "usd_per_million_output_tokens"
_OBJECTIVE, _EVERYWHERE = Use.OBJECTIVE | Use.COMPARED, Use.OBJECTIVE | Use.COMPARED | Use.BASELINE | Use.LEDGER


def _throughput(name: str, title: str, unit: str, heading: str, uses: Use, meaning: str = "") -> Metric:
    return Metric(
        name=name,
        title=title,
        unit=unit,
        heading=heading,
        better=MAXIMIZE,
        log_sd=RATE_SD,
        uses=uses,
        meaning=meaning,
        of_served=True,
    )


def _share(name: str, title: str, meaning: str, uses: Use, heading: str = "") -> Metric:
    return Metric(name=name, title=title, unit="%", heading=heading, factor=100.0, meaning=meaning, uses=uses)


def _latency(name: str, title: str, log_sd: str, heading: str, meaning: str, uses: Use) -> Metric:
    return Metric(
        name=name,
        title=title,
        unit="s",
        heading=heading,
        better=MINIMIZE,
        log_sd=log_sd,
        meaning=meaning,
        uses=uses,
    )


def _cost(name: str, title: str, unit: str, heading: str, uses: Use) -> Metric:
    return Metric(
        name=name,
        title=title,
        unit=unit,
        heading=heading,
        better=MINIMIZE,
        log_sd=RATE_SD,
        uses=uses,
        priced=True,
        of_served=True,
    )


_E2E = "seconds from a request's arrival to its last token, TTFT + (output tokens - 1) x TPOT"
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _throughput(PER_GPU, "Total throughput", "tok/s/GPU", "tok/s/GPU", _EVERYWHERE),
        _throughput("output_tokens_per_s_per_gpu", "Output throughput", "tok/s/GPU", "out/s/GPU", _EVERYWHERE),
        _throughput("total_tokens_per_s", "Total throughput", "tok/s", "tok/s", _OBJECTIVE),
        _throughput("output_tokens_per_s", "Output throughput", "tok/s", "out/s", _OBJECTIVE),
        _throughput("requests_per_s", "Requests served", "requests/s", "req/s", _EVERYWHERE, "requests/s"),
        Metric(
            name=GOODPUT,
            title="Goodput",
            unit="requests/s/GPU",
            heading="good req/s/GPU",
            better=MAXIMIZE,
            uses=Use.OBJECTIVE | Use.BASELINE,
            simulated=True,
        ),
        _throughput("stage_tokens_per_s_per_gpu", "Throughput per GPU of a stage", "tok/s", "", Use.COMPARED),
        _latency("ttft_s", "Mean TTFT", TTFT_SD, "TTFT s", "mean TTFT, s", _EVERYWHERE),
        _latency(
            "ttft_longest_s",
            "TTFT at the longest prompt",
            TTFT_SD,
            "TTFT s",
            "TTFT of the longest prompt, s",
            Use.COMPARED | Use.LEDGER,
        ),
        replace(_latency("tpot_s", "TPOT", TPOT_SD, "TPOT ms", "mean TPOT, s", _EVERYWHERE), unit="ms", factor=1e3),
        _latency("e2e_s", "Time of a request", RATE_SD, "", _E2E, NOT_USED),
        _share(
            "memory_util_frac",
            "GPU memory in use",
            "memory in use on the fullest GPU",
            Use.COMPARED | Use.BASELINE | Use.LEDGER,
            "mem",
        ),
        _share(
            "gpu_util_frac",
            "GPU busy",
            "share of time in which the busiest stage's GPUs run kernels",
            Use.COMPARED | Use.BASELINE,
            "GPU",
        ),
        _share("compute_util_frac", "Share of peak FLOP/s", "achieved over peak FLOP/s", Use.COMPARED),
        _share(
            "bandwidth_util_frac",
            "Share of peak memory bandwidth",
            "achieved over peak memory bandwidth",
            Use.COMPARED,
        ),
        Metric(name="kv_capacity_sequences", title="Requests that the KV cache holds", unit="", uses=Use.COMPARED),
        Metric(name="kv_fits_longest", title="Longest requests that the KV cache holds", unit=""),
        _cost(COST, "Cost", "USD per million tokens", "USD/Mtok", Use.OBJECTIVE | Use.BASELINE),
        _cost(OUTPUT_COST, "Cost of output", "USD per million output tokens", "", NOT_USED),
        Metric(
            name=GPUS,
            title="GPUs",
            unit="GPUs",
            heading="GPUs",
            better=MINIMIZE,
            uses=Use.OBJECTIVE | Use.BASELINE,
        ),
    )
}


def used(use: Use) -> tuple[Metric, ...]:
    """The metrics of one use, in the order in which they are shown."""
    return tuple(metric for metric in METRICS.values() if use in metric.uses)


OBJECTIVES: Mapping[str, str] = {metric.name: metric.better for metric in used(Use.OBJECTIVE)}
"""Metric that a study may be about -> the direction in which it is better; the first is the default."""
OF_CLUSTERS = (COST, GPUS)
"""Objectives that tell clusters apart: on one cluster both order plans as throughput per GPU does, or not at all."""
ESTIMATED = tuple(metric.name for metric in METRICS.values() if not metric.priced and not metric.simulated)
"""Metrics that an `Estimate` holds; the others follow from the price of the GPUs, or from a simulation."""
