"""Traffic from wherever it is: logs and metrics, files and addresses, plain and gzip, told apart by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from autotune.traffic.access_log import looks_like_access_log, read_access_log
from autotune.traffic.covered import covered_time
from autotune.traffic.csv_header import lacking, looks_like_csv
from autotune.traffic.csv_log import read_csv
from autotune.traffic.json_log import read_document, read_jsonl
from autotune.traffic.judgement import left_out, refusal_of, uncovered
from autotune.traffic.options import AS_THEY_SAY, ReadOptions
from autotune.traffic.parquet_log import PARQUET_MAGIC, read_parquet
from autotune.traffic.problems import TRUNCATED
from autotune.traffic.prometheus import MAX_METRICS_BYTES, looks_like_metrics, profile_of_metrics, servers_with_metrics
from autotune.traffic.requests import Columns, Gathered
from autotune.traffic.source import Source, open_source
from autotune.traffic.traffic_log import TrafficLog
from costmodel.errors import InputError
from costmodel.simulation.prefix_cache import PromptBlocks

HEAD_BYTES = 1 << 16
"""Enough of a log's beginning to tell what it is."""
MAX_DOCUMENT_BYTES = 256 << 20
"""Of a log that is one JSON document or a Parquet file, which have to be held as a whole."""
TOO_LONG = "must be at most {} MiB, or have one request per line as JSON or CSV"


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
    while begin.startswith((b"#", b"sep=")) and not looks_like_csv(first):  # comments, and what Excel writes first
        first = begin = begin.partition(b"\n")[2].lstrip()
    if looks_like_csv(first):
        return "csv", read_csv(name, first, pieces, gathered, options)
    if looks_like_access_log(begin):
        return "text", read_access_log(name, first, pieces, gathered, options)
    head = first.partition(b"\n")[0]
    if missing := lacking(head):
        raise InputError.single(name, f"must name {missing} in its header, got {head[:120].decode(errors='replace')!r}")
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


def _whole(
    name: str, first: bytes, pieces: Iterator[bytes], most: int = MAX_DOCUMENT_BYTES, refusal: str = TOO_LONG
) -> bytes:
    content = bytearray(first)
    for piece in pieces:
        content += piece
        if len(content) > most:
            raise InputError.single(name, refusal.format(most >> 20))
    return bytes(content)


def _head(pieces: Iterator[bytes]) -> bytes:
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= HEAD_BYTES or b"\n" in first:
            break
    return first


def _log(  # noqa: PLR0913  # what was gathered, and for which window
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
        fingerprint=_fingerprint(held, start, end, gathered.blocks),
        start_s=start,
        end_s=end,
        num_requests=round(held.times_s.size * held.requests_each),
        lines=gathered.lines,
        problems=problems,
        failed=gathered.failed,
        refusal=refusal_of(opened, gathered, held, problems, options, covered, (start, end)),
        assumptions=(*assumptions, *left_out(gathered, held, options), *uncovered(covered, start, end)),
        columns=held,
        covered=covered,
        all_blocks=gathered.blocks,
    )


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
        refusal=why,
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
    content = _whole(opened.name, first, pieces, MAX_METRICS_BYTES, "metrics must be at most {} MiB")
    found = profile_of_metrics(opened.name, content, window_s=window_s, now_s=now_s, options=options)
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
        refusal=opened.damage,
        assumptions=found.assumptions,
        columns=None,
        measured=found,
    )


def _fingerprint(held: Columns, start_s: float, end_s: float, blocks: PromptBlocks | None = None) -> str:
    digest = hashlib.sha256(repr((start_s, end_s, held.requests_each)).encode())
    columns = [held.times_s, held.prompt, held.output, held.cached, held.blocks_at]
    columns += [] if blocks is None else [blocks.ids, blocks.start]
    for column in columns:
        if column is not None:
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
