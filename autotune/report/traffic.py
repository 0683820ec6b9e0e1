"""What was understood of traffic: for programs, and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from autotune.report.text_blocks import Block, Line, Report, text_table
from autotune.report.vocabulary.words import count
from autotune.traffic.problems import problem_words
from autotune.traffic.profile import QUANTILES
from autotune.traffic.times import UNIX_FROM
from autotune.traffic.traffic_log import TrafficLog

SHOWN_BINS = 48
"""Of the rate over time, in a table."""


def traffic_document(log: TrafficLog, question: str | None) -> dict[str, Any]:
    """What was read; `question` is what to ask of it, None: nothing."""
    read = log.to_json()
    document: dict[str, Any] = {**read, "question": question}
    if log.refusal is not None:
        return document
    profile = log.profile()
    rate, caches = profile.rate, log.cache_shares()
    return document | {
        "span_s": profile.span_s,
        "rate": {
            "mean_per_s": rate.mean_per_s,
            "mean_interval_per_s": list(rate.mean_interval_per_s),
            "peak_per_s": rate.peak_per_s,
            "peak_bin_s": rate.bin_s,
            "burstiness": rate.burstiness,
            "burstiness_interval": list(rate.burstiness_interval),
        },
        "rate_over_time": log.rate_over_time(),
        "prompt_tokens": _lengths(profile.prompt_mean, profile.prompt_quantiles, profile.longest_prompt),
        "output_tokens": _lengths(profile.output_mean, profile.output_quantiles, profile.longest_output),
        "shared_prefix_frac": profile.shared_prefix_frac,
        "shared_prefix_frac_by_cache_tokens": (
            None if caches is None else {str(size): share for size, share in caches.items()}
        ),
        "kinds": [{"isl": p.isl, "osl": p.osl, "share": p.weight} for p in profile.points],
    }


def _lengths(mean: float, quantiles: Sequence[float], longest: int) -> dict[str, float]:
    named = {f"p{round(100 * q)}": value for q, value in zip(QUANTILES, quantiles, strict=True)}
    return {"mean": mean, **named, "longest": longest}


def traffic_report(document: Mapping[str, Any]) -> Report:
    """The same for people."""
    d = document
    lines = [f"read as {d['form']}: {count(d['lines'], 'line')}, {d['failed_requests']:,} not served"]
    if d["problems"]:
        lines.append(f"of no use: {problem_words(d['problems'])}")
    assumed = Block(title="Assumed", lines=tuple(d["assumptions"]))
    if d["refusal"] is not None:
        return Report(
            headline=f"{d['source']}: cannot be judged",
            reason=d["refusal"],
            tone="bad",
            lines=tuple(lines),
            blocks=(assumed,),
        )
    rate = d["rate"]
    low, high = rate["mean_interval_per_s"]
    spread_low, spread_high = rate["burstiness_interval"]
    asked = (Line(text=d["question"], tone="open"),) if d["question"] else ()
    rows = [
        ("requests/s, mean", f"{rate['mean_per_s']:,.4g}", f"{low:,.4g} to {high:,.4g}"),
        (f"requests/s, fullest {rate['peak_bin_s']:g} s", f"{rate['peak_per_s']:,.4g}", ""),
        ("burstiness (1: Poisson)", f"{rate['burstiness']:,.3g}", f"{spread_low:,.3g} to {spread_high:,.3g}"),
    ]
    quantiles = [name for name in d["prompt_tokens"] if name != "mean"]
    tokens = [
        (title, *(f"{d[key][name]:,.0f}" for name in ("mean", *quantiles)))
        for title, key in (("prompt", "prompt_tokens"), ("output", "output_tokens"))
    ]
    return Report(
        headline=f"{d['source']}: {count(d['requests'], 'request')} in {d['span_s'] / 3600.0:,.3g} h",
        lines=tuple(lines),
        blocks=(
            Block(title="Rate", table=text_table(("", "value", "95 %"), rows, texts=(0,)), lines=asked),
            Block(title="Tokens", table=text_table(("", "mean", *quantiles), tokens, texts=(0,))),
            _prefixes(d),
            _over_time(d["rate_over_time"]),
            assumed,
        ),
    )


def _prefixes(d: Mapping[str, Any]) -> Block:
    share = d["shared_prefix_frac"]
    if share is None:
        return Block(title="Shared prefixes", lines=("the log does not say",))
    rows = [("without a bound", f"{share:.1%}")]
    rows = [
        (f"{int(size):,} tokens", f"{frac:.1%}")
        for size, frac in (d["shared_prefix_frac_by_cache_tokens"] or {}).items()
    ] + rows
    return Block(title="Shared prefixes", table=text_table(("cache", "of prompt tokens"), rows, texts=(0,)))


def _over_time(bins: Sequence[Mapping[str, float]]) -> Block:
    if not bins:
        return Block(title="Over time", lines=("only the rate of the whole is known",))
    rows = [(when(b["start_s"]), f"{b['requests']:,.0f}", f"{b['per_s']:,.4g}") for b in bins[:SHOWN_BINS]]
    rest = len(bins) - SHOWN_BINS
    lines = (f"and {rest:,} more (--json)",) if rest > 0 else ()
    return Block(title="Over time", table=text_table(("from", "requests", "requests/s"), rows, texts=(0,)), lines=lines)


def when(seconds: float) -> str:
    """A moment: a date where times are Unix times, else from the log's start."""
    if seconds < UNIX_FROM:
        hours, rest = divmod(int(seconds), 3600)
        return f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
