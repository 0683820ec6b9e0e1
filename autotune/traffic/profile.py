"""A workload profile: what of a window of traffic decides which plan serves it best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from autotune.traffic.covered import without_gaps
from autotune.traffic.grid import Grid
from autotune.traffic.rates import Rate, rate_of_times
from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints
from costmodel.serving.requests import RequestKind

SCHEMA = 1
"""Of the JSON content; profiles of a later schema are refused, not guessed at."""
QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadProfile:
    """A window of traffic in short."""

    start_s: float
    """Of the window, Unix time."""
    end_s: float
    num_requests: int
    rate: Rate
    prompt_mean: float
    """Prompt tokens per request."""
    output_mean: float
    prompt_quantiles: tuple[float, ...]
    """Prompt tokens at each of `QUANTILES`."""
    output_quantiles: tuple[float, ...]
    longest_prompt: int
    longest_output: int
    points: tuple[RequestKind, ...]
    """Weighted lengths that the cost model evaluates: weights sum to 1 and keep both means."""
    grid: Grid
    """Joint lengths, for comparing with another window."""
    shared_prefix_frac: float | None
    """Share of prompt tokens that a request shares with an earlier one's beginning; None: the log does not say."""
    assumptions: tuple[str, ...] = ()
    """What the log left open and how it was filled in."""

    @property
    def span_s(self) -> float:
        """Length of the window."""
        return self.end_s - self.start_s

    def to_json(self) -> dict[str, Any]:
        """JSON content; `profile_from_json` reads it."""
        # tuples become lists, so that what was written and read again is equal to what was not
        content = {k: _plain(v) for k, v in asdict(self).items() if k != "grid"}
        return {"schema": SCHEMA, **content, "quantiles": list(QUANTILES), "grid": self.grid.to_json()}


def profile_of_arrays(  # noqa: PLR0913  # one for each thing that may be known
    times_s: Floats,
    prompt_tokens: Floats,
    output_tokens: Floats,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    gaps_s: tuple[tuple[float, float], ...] = (),
    shared_prefix_frac: float | None = None,
    requests_each: float = 1.0,
    assumptions: tuple[str, ...] = (),
) -> WorkloadProfile:
    """Profile requests, all of shape `(num_requests,)`, in any order.

    Args:
        times_s: arrivals, Unix time or from any other zero.
        prompt_tokens: at least 1 each.
        output_tokens: the same.
        start_s: of the window; None: the first request.
        end_s: of the window, later than its start; None: the last request.
        gaps_s: time in the window that the log does not cover, which counts for no rate.
        shared_prefix_frac: where the log has it.
        requests_each: how many requests each row stands for, where a log was thinned.
        assumptions: what was filled in so far.

    Raises:
        ValueError: there is no request, or the window has no length.
    """
    if times_s.size == 0:
        raise ValueError("a profile must be of at least one request, got none")
    start = float(times_s.min()) if start_s is None else start_s
    end = float(times_s.max()) if end_s is None else end_s
    if not end > start:
        raise ValueError(f"a window must end after it starts, got {start=}, {end=}")
    missing = sum(until - since for since, until in gaps_s)
    rate = rate_of_times(without_gaps(times_s, gaps_s), start_s=start, end_s=end - missing, requests_each=requests_each)
    return profile_of_lengths(
        prompt_tokens,
        output_tokens,
        np.full(times_s.size, requests_each),
        rate=rate,
        start_s=start,
        end_s=end,
        shared_prefix_frac=shared_prefix_frac,
        assumptions=assumptions,
    )


def profile_of_lengths(  # noqa: PLR0913  # one for each thing that may be known
    prompt_tokens: Floats,
    output_tokens: Floats,
    requests: Floats,
    *,
    rate: Rate,
    start_s: float,
    end_s: float,
    shared_prefix_frac: float | None = None,
    assumptions: tuple[str, ...] = (),
) -> WorkloadProfile:
    """Profile pairs of lengths that stand for `requests` each, where the rate is known from elsewhere."""
    prompts, outputs = (np.asarray(t, dtype=np.float64) for t in (prompt_tokens, output_tokens))
    total = float(requests.sum())
    return WorkloadProfile(
        start_s=start_s,
        end_s=end_s,
        num_requests=round(total),
        rate=rate,
        prompt_mean=float(prompts @ requests) / total,
        output_mean=float(outputs @ requests) / total,
        prompt_quantiles=_quantiles(prompts, requests),
        output_quantiles=_quantiles(outputs, requests),
        longest_prompt=int(prompts.max()),
        longest_output=int(outputs.max()),
        points=representative_points(prompts, outputs, requests),
        grid=Grid.of(prompts, outputs, requests),
        shared_prefix_frac=shared_prefix_frac,
        assumptions=assumptions,
    )


def profile_from_json(content: Mapping[str, Any]) -> WorkloadProfile:
    """Read what `WorkloadProfile.to_json` wrote.

    Raises:
        InputError: it is no profile, or of a later schema.
    """
    if content.get("schema") != SCHEMA:
        raise InputError.single("$.schema", f"must be {SCHEMA}, the profile's schema, got {content.get('schema')!r}")
    try:
        rate = {k: _tuple(v) for k, v in content["rate"].items()}
        profile = WorkloadProfile(
            **{k: _tuple(v) for k, v in content.items() if k not in ("schema", "quantiles", "rate", "points", "grid")},
            rate=Rate(**rate),
            points=tuple(RequestKind(**p) for p in content["points"]),
            grid=Grid.from_json(content["grid"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError.single("$", f"must be a workload profile: {error}") from error
    numbers = (profile.start_s, profile.end_s, profile.prompt_mean, profile.output_mean, profile.rate.mean_per_s)
    if not profile.points or not all(isinstance(n, (int, float)) and isfinite(n) for n in numbers):
        raise InputError.single("$", "must be a workload profile with points and finite means")
    return profile


def _quantiles(values: Floats, requests: Floats) -> tuple[float, ...]:
    """The smallest value that at least each share of the requests does not exceed."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(requests[order])
    index = np.searchsorted(share, np.array(QUANTILES) * share[-1] * (1.0 - 1e-12))
    return tuple(values[order][np.minimum(index, values.size - 1)].tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


PROMPT_CUTS = (0.3, 0.6, 0.85)
"""Groups of prompts; finer towards the long ones, whose prefill costs most."""
OUTPUT_CUTS = (0.6,)
"""Groups of outputs within one of prompts."""


def representative_points(
    prompt_tokens: Floats,
    output_tokens: Floats,
    requests: Floats,
    *,
    prompt_cuts: tuple[float, ...] = PROMPT_CUTS,
    output_cuts: tuple[float, ...] = OUTPUT_CUTS,
) -> tuple[RequestKind, ...]:
    """Points of requests, by rising prompt and output length; at most `(cuts + 1)` of each, multiplied.

    Args:
        prompt_tokens: shape `(num_pairs,)`.
        output_tokens: the same.
        requests: how many each pair stands for, the same shape.
        prompt_cuts: quantiles that part the prompts.
        output_cuts: quantiles that part the outputs of each group of prompts.
    """
    total = float(requests.sum())
    out: list[RequestKind] = []
    by_prompt = _groups(prompt_tokens, output_tokens, requests, prompt_cuts)
    for group in by_prompt:
        for part in _groups(output_tokens[group], prompt_tokens[group], requests[group], output_cuts):
            index = group[part]
            weight = float(requests[index].sum())
            out.append(
                RequestKind(
                    isl=float(prompt_tokens[index] @ requests[index]) / weight,
                    osl=float(output_tokens[index] @ requests[index]) / weight,
                    weight=weight / total,
                )
            )
    return tuple(out)


def _groups(values: Floats, others: Floats, requests: Floats, cuts: tuple[float, ...]) -> list[Ints]:
    """Indices of each group by rising value; equal values stay in one, `others` only orders what is summed."""
    order = np.lexsort((others, values))
    share = (np.cumsum(requests[order]) - 0.5 * requests[order]) / requests.sum()
    ordered = values[order]
    # a run of equal values belongs to where its middle lies
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], ordered.size]
    middle = np.repeat(0.5 * (share[starts] + share[ends - 1]), ends - starts)
    part = np.searchsorted(np.array(cuts), middle)
    return [order[part == i] for i in range(len(cuts) + 1) if np.any(part == i)]
