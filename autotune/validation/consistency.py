"""Whether a benchmark's result can be believed: figures that are none, and figures that contradict each other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from autotune.validation.record_tables import DEPTH
from autotune.validation.reported import STATISTICS, Record, Reported

TOO_MANY = 1.25
"""Requests in flight by Little's law over the most that there can have been, above which figures contradict each other:
a mean time per token times a mean length is that much off where lengths vary."""
OF_PARTS = 2.0
"""The same of a request's time over that of its first and its other tokens, of which the tools leave out some."""

_FIELD = re.compile(
    r"(mean|median|p\d\d)_(ttft|tpot|e2el|e2e_latency)(_ms)?|completed|failed|duration|total_(in|out)put_tokens"
    r"|max_concurrency|concurrency|request_rate|burstiness|conc|isl|osl|(output_)?tput_per_gpu"
    r"|results_(ttft_s|end_to_end_latency_s|number_(in|out)put_tokens)_(mean|quantiles_p\d\d)|num_concurrent_requests"
)
"""Fields of a result itself that are read."""
_TABLE = re.compile(
    r"time_to_first_token(_ms)?|inter_token_latency(_ms)?|time_per_output_token|request_latency|request_concurrency"
    r"|(in|out)put_(sequence_)?length|(prompt|output)_token_count|(prompt|output)_len"
)
"""Tables of statistics that are read, wherever they lie."""
_STATISTIC = re.compile(r"mean|avg|average|median|p?\d\d(\.0)?")


def malformed(record: Record) -> Iterator[str]:
    """What is no number of at least 0 among the fields that are read, with where it stands."""
    yield from _malformed(record, "", 0)


def _malformed(table: Record, at: str, depth: int) -> Iterator[str]:
    of_statistics = bool(
        _TABLE.fullmatch(at.removesuffix(".successful").removesuffix(".percentiles").rpartition(".")[2])
    )
    for name, value in table.items():
        where = f"{at}.{name}" if at else str(name)
        if isinstance(value, Mapping):
            if depth < DEPTH and not _is_setting(str(name)):
                yield from _malformed(value, where, depth + 1)
        elif (_STATISTIC if of_statistics else _FIELD).fullmatch(str(name)) and (of_statistics or not depth):
            yield from _wrong(where, value)


def _is_setting(name: str) -> bool:
    """Whether a table says what was asked for, which may be in words, and not what came of it."""
    return name in ("input_config", "config", "args", "scenario", "metadata", "server_info", "loadgen")


def _wrong(where: str, value: Any) -> Iterator[str]:
    unlimited = where.rpartition(".")[2] == "request_rate" and value in ("inf", "Infinity", "trace")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or unlimited or (number and not value < 0):  # NaN: the tool had nothing to take a mean of
        return
    yield f"{where} must be a number of at least 0, got {value!r}"


def contradictions(reported: Reported, requests_per_s: float) -> Iterator[str]:
    """Which figures of a run cannot all be true, with those figures."""
    for name, by in (("TTFT", reported.ttft_s), ("TPOT", reported.tpot_s), ("request latency", reported.e2e_s)):
        known = [(s, by[s]) for s in STATISTICS[1:] if s in by]
        for (low, less), (high, more) in pairwise(known):
            if less > more * (1.0 + 1e-6):
                yield f"{name} {low} must be at most {high}, got {less:.4g} s and {more:.4g} s"
    took_s, parts_s = reported.mean_e2e_s, reported.parts_s
    measured_s = reported.e2e_s.get("mean", math.nan)
    if max(measured_s, parts_s) > OF_PARTS * min(measured_s, parts_s) > 0:
        yield (
            f"a request's mean time of {measured_s:.4g} s contradicts its TTFT and {reported.osl:,.0f} tokens at its "
            f"TPOT, {parts_s:.4g} s in all"
        )
    if took_s > TOO_MANY * reported.duration_s:
        yield f"a request's mean time must be at most the run's {reported.duration_s:.4g} s, got {took_s:.4g} s"
    law = requests_per_s * took_s
    for what, most in (("let through at once", reported.asked_in_flight), ("seen at once", reported.seen_in_flight)):
        if law > TOO_MANY * most > 0:
            yield (
                f"requests {what} must be at least {law:,.0f}, as {requests_per_s:.3g} a second take {took_s:,.4g} s "
                f"each (Little's law), got {most:,.4g}"
            )
