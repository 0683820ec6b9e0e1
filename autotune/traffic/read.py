"""Traffic from wherever it is: logs and metrics, files and addresses, plain and gzip, told apart by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.traffic.csv_log import looks_like_csv, needed_columns, read_csv
from autotune.traffic.json_log import read_jsonl
from autotune.traffic.problems import CLOCK_JUMP, TRUNCATED, problem_words
from autotune.traffic.profile import WorkloadProfile, profile_of_arrays
from autotune.traffic.prometheus import (
    MAX_METRICS_BYTES,
    looks_like_metrics,
    profile_of_metrics,
    servers_with_metrics,
)
from autotune.traffic.requests import UNKNOWN, Columns, Gathered
from autotune.traffic.source import Source, open_source
from costmodel.errors import InputError

HEAD_BYTES = 1 << 16
"""Enough of a log's beginning to tell what it is."""
MAX_BAD_FRAC = 0.05
"""Share of unusable lines above which a log is not decided on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficLog:
    """A window of traffic as it was read."""

    source: str
    form: str
    """`csv`, `jsonl` or `prometheus`."""
    fingerprint: str
    """SHA-256 of the window and of what is in it, in hexadecimal: equal traffic, equal fingerprint."""
    start_s: float
    """Of the window, Unix time (or from the log's own start, where it has no other)."""
    end_s: float
    num_requests: int
    lines: int
    """Lines read, before the window was cut out."""
    problems: Mapping[str, int]
    """Unusable lines, by kind (`autotune.traffic.problems.WORDS`)."""
    failed: int
    """Requests that the log says were not served; they are left out."""
    refusal: str | None
    """Why nothing can be decided on this window; None: it can."""
    assumptions: tuple[str, ...]
    columns: Columns | None
    """The window's requests; None: only their distribution is known."""
    measured: WorkloadProfile | None = None
    """The profile, where the source holds distributions and no requests."""

    def profile(self, *, since_s: float | None = None) -> WorkloadProfile:
        """The window's profile.

        Args:
            since_s: requests before are left out, as those that a cold start served; no effect on distributions.

        Raises:
            ValueError: the window was refused, or nothing is left of it.
        """
        if self.refusal is not None:
            raise ValueError(f"no profile of a refused window: {self.refusal}")
        if self.columns is None:
            if self.measured is None:
                raise ValueError("neither requests nor distributions were read")
            return self.measured
        start = self.start_s if since_s is None else max(self.start_s, since_s)
        held = self.columns.between(start, self.end_s)
        return profile_of_arrays(
            held.times_s,
            held.prompt.astype(np.float64),
            held.output.astype(np.float64),
            start_s=start,
            end_s=self.end_s,
            shared_prefix_frac=_shared_frac(held),
            requests_each=held.requests_each,
            assumptions=self.assumptions,
        )

    def to_json(self) -> dict[str, Any]:
        """How it was read, as JSON content."""
        return {
            "source": self.source,
            "form": self.form,
            "fingerprint": self.fingerprint,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "requests": self.num_requests,
            "lines": self.lines,
            "failed_requests": self.failed,
            "problems": dict(self.problems),
            "refusal": self.refusal,
            "assumptions": list(self.assumptions),
        }


def read_traffic(
    source: str,
    *,
    window_s: float | None = None,
    now_s: float | None = None,
    timeout_s: float = 30.0,
    max_bad_frac: float = MAX_BAD_FRAC,
) -> TrafficLog:
    """Read a window of traffic, in bounded memory.

    Args:
        source: path of a file, `-` for standard input, or an `http(s)://` address.
        window_s: length of the window; None: everything up to its end.
        now_s: end of the window, Unix time; None: the last request.
        timeout_s: of an address.
        max_bad_frac: share of unusable lines above which the window is refused.

    Raises:
        InputError: it cannot be read, or is none of the forms.
    """
    if window_s is not None and not 0.0 < window_s < np.inf:
        raise InputError.single("--window", f"must be longer than 0 s, got {window_s:g}")
    with open_source(source, timeout_s=timeout_s) as opened:
        pieces = opened.pieces
        first = _head(pieces)
        if not first.strip():
            return _refused(opened, "csv", opened.damage or "it is empty", window_s, now_s)
        if looks_like_metrics(first):
            return _metrics(opened, first, pieces, window_s, now_s)
        bounds = None if now_s is None or window_s is None else (now_s - window_s, now_s)
        gathered = Gathered(window_s=window_s if now_s is None else None, between_s=bounds)
        if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            form, assumptions = "jsonl", read_jsonl(first, pieces, gathered)
        elif looks_like_csv(first):
            form, assumptions = "csv", read_csv(opened.name, first, pieces, gathered)
        else:
            raise InputError.single(
                opened.name,
                "must be CSV whose header names a time, prompt and output tokens ("
                + "; ".join(needed_columns())
                + f"), JSON lines, or metrics of {servers_with_metrics()} in Prometheus' text or query format",
            )
        return _log(opened, form, assumptions, gathered, window_s=window_s, now_s=now_s, max_bad_frac=max_bad_frac)


def _head(pieces: Iterator[bytes]) -> bytes:
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= HEAD_BYTES or b"\n" in first:
            break
    return first


def _log(
    opened: Source,
    form: str,
    assumptions: tuple[str, ...],
    gathered: Gathered,
    *,
    window_s: float | None,
    now_s: float | None,
    max_bad_frac: float,
) -> TrafficLog:
    if opened.cut_off:
        gathered.problems[TRUNCATED] += 1
    columns = gathered.columns()
    times = columns.times_s
    end = now_s if now_s is not None else (float(times[-1]) if times.size else 0.0)
    start = end - window_s if window_s is not None else (float(times[0]) if times.size else end)
    held = columns.between(start, end)
    problems = {kind: count for kind, count in sorted(gathered.problems.items()) if count}
    unusable = sum(count for kind, count in problems.items() if kind != CLOCK_JUMP)
    thinned = (f"only every {held.requests_each:g}th request is held, for memory",) if held.requests_each > 1 else ()
    failed = (f"{gathered.failed:,} requests that were not served are left out",) if gathered.failed else ()
    return TrafficLog(
        source=opened.name,
        form=form,
        fingerprint=_fingerprint(held, start, end),
        start_s=start,
        end_s=end,
        num_requests=round(held.times_s.size * held.requests_each),
        lines=gathered.lines,
        problems=problems,
        failed=gathered.failed,
        refusal=_refusal(opened, gathered, held, unusable, max_bad_frac, problems, end > start),
        assumptions=(*assumptions, *thinned, *failed),
        columns=held,
    )


def _refusal(
    opened: Source,
    gathered: Gathered,
    held: Columns,
    unusable: int,
    max_bad_frac: float,
    problems: Mapping[str, int],
    has_length: bool,
) -> str | None:
    if opened.damage is not None:
        return opened.damage
    if unusable > max_bad_frac * gathered.lines:
        share = unusable / max(gathered.lines, 1)
        return f"{share:.1%} of the lines are of no use, more than {max_bad_frac:.0%}: {problem_words(problems)}"
    if held.times_s.size == 0:
        return "there is no request in the window" + (f" ({gathered.lines:,} lines read)" if gathered.lines else "")
    return None if has_length else "all requests came at one instant: there is no rate"


def _refused(opened: Source, form: str, why: str, window_s: float | None, now_s: float | None) -> TrafficLog:
    end = now_s or 0.0
    start = end - (window_s or 0.0)
    empty = Gathered().columns()
    return TrafficLog(
        source=opened.name,
        form=form,
        fingerprint=_fingerprint(empty, start, end),
        start_s=start,
        end_s=end,
        num_requests=0,
        lines=0,
        problems={},
        failed=0,
        refusal=why,
        assumptions=(),
        columns=empty,
    )


def _metrics(
    opened: Source, first: bytes, pieces: Iterator[bytes], window_s: float | None, now_s: float | None
) -> TrafficLog:
    content = bytearray(first)
    for piece in pieces:
        content += piece
        if len(content) > MAX_METRICS_BYTES:
            raise InputError.single(opened.name, f"metrics must be at most {MAX_METRICS_BYTES >> 20} MiB")
    found = profile_of_metrics(opened.name, bytes(content), window_s=window_s, now_s=now_s)
    if isinstance(found, str):
        return _refused(opened, "prometheus", found, window_s, now_s)
    return TrafficLog(
        source=opened.name,
        form="prometheus",
        fingerprint=hashlib.sha256(repr((found.start_s, found.end_s, found.to_json())).encode()).hexdigest(),
        start_s=found.start_s,
        end_s=found.end_s,
        num_requests=found.num_requests,
        lines=content.count(b"\n"),
        problems={},
        failed=0,
        refusal=opened.damage,
        assumptions=found.assumptions,
        columns=None,
        measured=found,
    )


def _fingerprint(held: Columns, start_s: float, end_s: float) -> str:
    digest = hashlib.sha256(repr((start_s, end_s, held.requests_each)).encode())
    for column in (held.times_s, held.prompt, held.output):
        digest.update(np.ascontiguousarray(column).tobytes())
    if held.cached is not None:
        digest.update(np.ascontiguousarray(held.cached).tobytes())
    return digest.hexdigest()


def _shared_frac(held: Columns) -> float | None:
    if held.cached is None:
        return None
    known = held.cached != UNKNOWN
    total = float(held.prompt[known].sum())
    return float(held.cached[known].sum()) / total if total > 0.0 else None
