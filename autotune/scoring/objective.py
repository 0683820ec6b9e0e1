"""What plans are ranked by: one formula for columns of estimates and for single plans."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10, nan
from typing import Protocol

import numpy as np

from autotune.study import Study
from costmodel.plan.columns import Floats

COST = "usd_per_million_tokens"
FEWEST_GPUS = "gpus"


def usd_per_million(price_per_hour: float, tokens_per_s: float) -> float:
    """US dollars per million tokens: the price of all GPUs over what they do. Infinite where they do nothing."""
    return price_per_hour / 3600.0 / tokens_per_s * 1e6 if tokens_per_s > 0.0 else float("inf")


def expected(study: Study, figures: Mapping[str, Floats], p_meets: Floats, price_per_hour: Floats) -> Floats:
    """What can be expected of plans that may break their limits, in the objective's direction, shape `(num_plans,)`.

    Args:
        study: the question.
        figures: the objective's metric, or what it follows from: `total_tokens_per_s` for the cost, and
            `total_tokens_per_s_per_gpu` and `gpus` for the GPU count.
        p_meets: probability of keeping every limit.
        price_per_hour: of all GPUs of each plan, US dollars.

    A metric to maximize counts by the probability that the limits are kept, and so does the cost: it is per token of a
    plan that may be no use. GPU counts are whole numbers, and plans with as many are ordered by throughput per GPU,
    which takes a place between 0 and 1. Latencies are taken as they are: their own limits bound them.
    """
    metric = study.objective.metric
    if metric == COST:
        useful = np.maximum(figures["total_tokens_per_s"] * p_meets, 1e-300)
        return np.asarray(price_per_hour / 3600.0 / useful * 1e6)
    if metric == FEWEST_GPUS:
        useful = np.maximum(figures["total_tokens_per_s_per_gpu"] * p_meets, 0.0)
        return np.asarray(figures["gpus"] - useful / (1.0 + useful))
    value = figures[metric]
    return value if study.objective.direction == "minimize" else value * p_meets


def looked_at(study: Study) -> tuple[str, ...]:
    """Figures that `expected` reads."""
    metric = study.objective.metric
    return {COST: ("total_tokens_per_s",), FEWEST_GPUS: ("total_tokens_per_s_per_gpu", "gpus")}.get(metric, (metric,))


class Scored(Protocol):
    """What `plan_expected` reads of a `PlanResult`."""

    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def p_meets(self) -> float: ...  # noqa: D102


def plan_expected(study: Study, plan: Scored) -> float:
    """`expected` of one plan."""
    m = plan.metrics
    price = m.get(COST, nan) * m["total_tokens_per_s"] * 3600.0 / 1e6
    figures = {name: np.array([m[name]]) for name in looked_at(study)}
    return float(expected(study, figures, np.array([plan.p_meets]), np.array([price]))[0])


def ranking_name(study: Study) -> str:
    """Name of `ranking_value`: the metric's own where it is taken as it is."""
    metric = study.objective.metric
    return metric if metric.endswith("_s") and study.objective.direction == "minimize" else f"expected_{metric}"


def ranking_value(study: Study, plan: Scored) -> float:
    """What a plan is ranked by, one number in the objective's direction: what can be expected of it.

    At a given request rate all plans that take it serve alike: throughput counts to three digits, and of plans that
    are equal in them the time of a request decides, in the digits behind.
    """
    value = plan_expected(study, plan)
    if study.objective.direction == "minimize" or study.workload.request_rate_per_s is None:
        return value
    request_s = plan.metrics["ttft_s"] + max(study.workload.osl.mean - 1.0, 0.0) * plan.metrics["tpot_s"]
    coarse = float(f"{value:.3g}")
    digit = 10.0 ** (floor(log10(coarse)) - 2) if coarse > 0.0 else 1e-300
    return coarse + digit / (1.0 + request_s)
