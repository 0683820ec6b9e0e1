"""Traffic from wherever it is: logs and metrics, files and addresses, plain and gzip, told apart by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.traffic.access_log import looks_like_access_log, read_access_log
from autotune.traffic.covered import Covered, covered_time
from autotune.traffic.csv_log import looks_like_csv, read_csv
from autotune.traffic.json_log import read_document, read_jsonl
from autotune.traffic.options import ReadOptions
from autotune.traffic.parquet_log import PARQUET_MAGIC, read_parquet
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
MAX_DOCUMENT_BYTES = 256 << 20
"""Of a log that is one JSON document or a Parquet file, which have to be held as a whole."""
AS_THEY_SAY = ReadOptions()
SHOWN_BINS_S = (3600.0, 600.0, 60.0, 10.0, 1.0)
LEAST_SHOWN_BINS, MOST_SHOWN_BINS = 6, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficLog:
    """A window of traffic as it was read."""

    source: str
    form: str
    """`csv`, `jsonl`, `json`, `text`, `parquet` or `prometheus`."""
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
    covered: Covered | None = None
    """What of the window the log covers; None: all of it."""
    cache_shares: Mapping[int, float] | None = None
    """Tokens of a prefix cache -> share of prompt tokens that it would find, where that was counted."""

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
        covered = self.covered or Covered(start_s=self.start_s, end_s=self.end_s)
        if since_s is not None:
            covered = covered.since(since_s)
        held = self.columns.between(covered.start_s, covered.end_s)
        return profile_of_arrays(
            held.times_s,
            held.prompt.astype(np.float64),
            held.output.astype(np.float64),
            start_s=covered.start_s,
            end_s=covered.end_s,
            gaps_s=covered.gaps_s,
            shared_prefix_frac=_shared_frac(held),
            requests_each=held.requests_each,
            assumptions=self.assumptions,
        )

    def rate_over_time(self) -> list[dict[str, float]]:
        """Requests per second in equal parts of the window: an hour each, or less where the window is short.

        Empty where only distributions are known.
        """
        if self.columns is None or self.columns.times_s.size == 0:
            return []
        covered = self.covered or Covered(start_s=self.start_s, end_s=self.end_s)
        span = covered.end_s - covered.start_s
        length = next((b for b in SHOWN_BINS_S if span >= LEAST_SHOWN_BINS * b), max(span, 1e-9) / LEAST_SHOWN_BINS)
        length = max(length, span / MOST_SHOWN_BINS)
        starts = covered.start_s + length * np.arange(max(int(np.ceil(span / length - 1e-9)), 1))
        ends = np.minimum(starts + length, covered.end_s)
        index = np.searchsorted(starts, self.columns.times_s, side="right") - 1
        counts = np.bincount(index[index >= 0], minlength=starts.size) * self.columns.requests_each
        return [
            {"start_s": float(s), "end_s": float(e), "requests": float(n), "per_s": float(n / (e - s))}
            for s, e, n in zip(starts, ends, counts, strict=True)
        ]

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
            "covered_frac": 1.0 if self.covered is None else self.covered.share(self.start_s, self.end_s),
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
    options: ReadOptions = AS_THEY_SAY,
) -> TrafficLog:
    """Read a window of traffic, in bounded memory.

    Args:
        source: path of a file, `-` for standard input, or an `http(s)://` address.
        window_s: length of the window; None: everything up to its end.
        now_s: end of the window, Unix time; None: the last request.
        timeout_s: of an address.
        options: what the source does not say of itself.

    Raises:
        InputError: it cannot be read, is none of the forms, or leaves open what only `options` can say.
    """
    if window_s is not None and not 0.0 < window_s < np.inf:
        raise InputError.single("--window", f"must be longer than 0 s, got {window_s:g}")
    with open_source(source, timeout_s=timeout_s) as opened:
        pieces = opened.pieces
        first = _head(pieces)
        if not first.strip():
            return _refused(opened, "csv", opened.damage or "it is empty", window_s, now_s)
        if looks_like_metrics(first):
            return _metrics(opened, first, pieces, window_s, now_s, options)
        bounds = None if now_s is None or window_s is None else (now_s - window_s, now_s)
        gathered = Gathered(window_s=window_s if now_s is None else None, between_s=bounds)
        form, assumptions = _requests(opened, first, pieces, gathered, options)
        return _log(opened, form, assumptions, gathered, window_s=window_s, now_s=now_s, options=options)


def _requests(
    opened: Source, first: bytes, pieces: Iterator[bytes], gathered: Gathered, options: ReadOptions
) -> tuple[str, list[str]]:
    """Read requests in whatever form they are; returns the form and what was assumed."""
    name, begin = opened.name, first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if first.startswith(PARQUET_MAGIC):
        return "parquet", read_parquet(name, _whole(name, first, pieces), gathered, options)
    if begin.startswith(b"[") and looks_like_access_log(begin):
        return "text", read_access_log(name, first, pieces, gathered, options)
    if begin.startswith(b"[") or (begin.startswith(b"{") and not _is_object(begin.split(b"\n", 1)[0])):
        content = _whole(name, first, pieces)
        try:
            document = json.loads(content.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            document = None
        if document is not None:
            return "json", read_document(name, document, gathered, options)
        first, pieces = content, iter(())
    if begin.startswith(b"{"):
        return "jsonl", read_jsonl(name, first, pieces, gathered, options)
    if looks_like_csv(first):
        return "csv", read_csv(name, first, pieces, gathered, options)
    if looks_like_access_log(begin):
        return "text", read_access_log(name, first, pieces, gathered, options)
    raise InputError.single(
        name,
        "must be CSV whose header names a time, prompt and output tokens (as timestamp, prompt_tokens, "
        "completion_tokens), requests as JSON, an access log with token counts, Parquet, or metrics of "
        f"{servers_with_metrics()} in Prometheus' text or query format",
    )


def _is_object(line: bytes) -> bool:
    """Whether a line is a JSON object by itself, or the beginning of one that goes on beyond what was read."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return len(line) >= HEAD_BYTES or not line.rstrip().endswith((b"{", b"[", b","))


def _whole(name: str, first: bytes, pieces: Iterator[bytes]) -> bytes:
    content = bytearray(first)
    for piece in pieces:
        content += piece
        if len(content) > MAX_DOCUMENT_BYTES:
            raise InputError.single(
                name, f"must be at most {MAX_DOCUMENT_BYTES >> 20} MiB, or have one request per line as JSON or CSV"
            )
    return bytes(content)


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
    assumptions: list[str],
    gathered: Gathered,
    *,
    window_s: float | None,
    now_s: float | None,
    options: ReadOptions,
) -> TrafficLog:
    if opened.cut_off:
        gathered.problems[TRUNCATED] += 1
    columns = gathered.columns()
    times = columns.times_s
    end = now_s if now_s is not None else (float(times[-1]) if times.size else 0.0)
    start = end - window_s if window_s is not None else (float(times[0]) if times.size else end)
    held = columns.between(start, end)
    problems = {kind: count for kind, count in sorted(gathered.problems.items()) if count}
    covered = None
    if held.times_s.size > 1 and end > start:
        covered = covered_time(held.times_s, start, end, goes_back=gathered.earliest_s < start)
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
        refusal=_refusal(opened, gathered, held, problems, options, covered, (start, end)),
        assumptions=(*assumptions, *_left_out(gathered, held, options), *_uncovered(covered, start, end)),
        columns=held,
        covered=covered,
        cache_shares=None if gathered.caches is None else gathered.caches.shares(),
    )


def _left_out(gathered: Gathered, held: Columns, options: ReadOptions) -> list[str]:
    said = []
    if held.requests_each > 1:
        said.append(f"only every {held.requests_each:g}th request is held, for memory")
    if gathered.failed:
        share = gathered.failed / max(gathered.lines, 1)
        said.append(f"{gathered.failed:,} requests that were not served ({share:.1%}) are left out")
    if gathered.other:
        said.append(f"{gathered.other:,} lines about something else (embeddings, health checks, tools) are left out")
    if gathered.unmatched:
        said.append(f"{gathered.unmatched:,} requests that are not of --match are left out")
    if len(gathered.models) > 1 and not options.match:
        most = ", ".join(name for name, _ in gathered.models.most_common(4))
        said.append(
            f"requests of {len(gathered.models)} models are taken together ({most}): --match model=NAME parts them"
        )
    return said


def _uncovered(covered: Covered | None, start_s: float, end_s: float) -> list[str]:
    if covered is None:
        return []
    said, share = [], covered.share(start_s, end_s)
    if share < 0.95:
        said.append(
            f"the log covers {share:.1%} of the window ({covered.seconds / 3600:.3g} of {(end_s - start_s) / 3600:.3g} "
            "h): the rate is that of the time covered"
        )
    if covered.gaps_s:
        said.append(
            f"{len(covered.gaps_s)} gaps without any request, {covered.gap_s / 3600:.3g} h in all, are taken as not "
            "logged, not as silence of users"
        )
    return said


def _refusal(
    opened: Source,
    gathered: Gathered,
    held: Columns,
    problems: Mapping[str, int],
    options: ReadOptions,
    covered: Covered | None,
    window: tuple[float, float],
) -> str | None:
    if opened.damage is not None:
        return opened.damage
    unusable = sum(count for kind, count in problems.items() if kind != CLOCK_JUMP)
    if unusable > options.max_bad_frac * gathered.lines:
        share = unusable / max(gathered.lines, 1)
        return (
            f"{share:.1%} of the lines are of no use, more than {options.max_bad_frac:.0%} (--max-bad): "
            f"{problem_words(problems)}"
        )
    if held.times_s.size == 0:
        told = [f"{gathered.lines:,} lines read"] if gathered.lines else []
        told += [f"{count:,} {what}" for count, what in _why_none(gathered) if count]
        return "there is no request in the window" + (f" ({', '.join(told)})" if told else "")
    if covered is None or covered.seconds <= 0.0:
        return "all requests came at one instant: there is no rate"
    share = covered.share(*window)
    if share < options.least_cover_frac:
        return (
            f"the log covers {share:.2%} of the window, less than {100 * options.least_cover_frac:g} % (--min-cover): "
            "give the window that it covers"
        )
    return None


def _why_none(gathered: Gathered) -> list[tuple[int, str]]:
    return [
        (gathered.failed, "not served"),
        (gathered.other, "about something else"),
        (gathered.unmatched, "not of --match"),
    ]


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
    opened: Source,
    first: bytes,
    pieces: Iterator[bytes],
    window_s: float | None,
    now_s: float | None,
    options: ReadOptions,
) -> TrafficLog:
    content = bytearray(first)
    for piece in pieces:
        content += piece
        if len(content) > MAX_METRICS_BYTES:
            raise InputError.single(opened.name, f"metrics must be at most {MAX_METRICS_BYTES >> 20} MiB")
    found = profile_of_metrics(opened.name, bytes(content), window_s=window_s, now_s=now_s, options=options)
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
