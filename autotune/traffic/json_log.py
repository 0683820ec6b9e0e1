"""Request logs as JSON: traces with block hashes, proxies' and gateways' logs, spans, sessions of agents.

A line is a request, or holds lists of them. Fields are found by what they mean (`autotune.traffic.names`), wherever
they lie in the line.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autotune.traffic import names
from autotune.traffic.blocks import Blocks, block_tokens
from autotune.traffic.fields import DEPTH, count, counts, flat, number
from autotune.traffic.names import canonical, first_of
from autotune.traffic.options import TIME_UNITS, ReadOptions
from autotune.traffic.problems import MALFORMED, NO_TIME, NO_TOKENS, TRUNCATED, token_problem
from autotune.traffic.requests import MAX_MODELS, UNKNOWN, Gathered
from autotune.traffic.source import whole_lines
from autotune.traffic.times import believable, iso_seconds, recognised_unit

BATCH = 50_000
FIRST_BATCH = 5_000
"""Requests by which units are recognised."""
MAX_CALLS = 100_000
"""Requests of one line."""


Moment = tuple[float, bool]
"""A time, and whether it is in seconds; else it is in the log's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    time: float
    known_s: bool
    prompt: int
    output: int
    cached: int
    ids: tuple[Hashable, ...]


@dataclass(slots=True, kw_only=True)
class JsonRequests:
    """Requests out of objects, one after the other."""

    name: str
    gathered: Gathered
    options: ReadOptions
    assumptions: list[str] = field(default_factory=list)
    _unit_s: float | None = None
    _block_tokens: int | None = None
    _settled: bool = False
    _expected: str | None = None
    _rows: list[_Row] = field(default_factory=list)
    _blocks: Blocks = field(default_factory=Blocks)

    def line(self, raw: bytes, *, cut_off: bool) -> None:
        """One line."""
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError):
            self.gathered.lines += 1
            self.gathered.problems[TRUNCATED if cut_off or not raw.rstrip().endswith(b"}") else MALFORMED] += 1
            return
        self.value(content)

    def value(self, content: Any) -> None:
        """One object, or a list of them."""
        if isinstance(content, dict) and _holds_all(content):
            content = _requests_of(content)
        if isinstance(content, list):
            for item in content:
                self.value(item)
            return
        self.gathered.lines += 1
        if not isinstance(content, dict):
            self.gathered.problems[MALFORMED] += 1
            return
        problem = self._object(content, None, 0)
        if problem is not None:
            self.gathered.problems[problem] += 1

    def _object(self, content: Mapping[str, Any], session: Moment | None, depth: int) -> str | None:
        """A request, or a session of requests; what is wrong with it. `session`: when what is around it began."""
        fields, lists = flat(content)
        calls = [item for inner in lists for item in inner if counts(item)][:MAX_CALLS] if depth < DEPTH else []
        prompt, output = count(names.SHORT_PROMPT, fields), count(names.SHORT_OUTPUT, fields)
        if calls and (prompt is None or output is None or not depth):
            self._session(fields, calls, session, depth)
            return None
        problem = self._request(fields, prompt, output, session)
        for call in calls:  # of a subagent
            self._object(call, session, depth + 1)
        return problem

    def _session(
        self, fields: Mapping[str, Any], calls: list[Mapping[str, Any]], session: Moment | None, depth: int
    ) -> None:
        began = self._time(fields, session)
        at, found = began, False
        for call in calls:
            inner = {canonical(k): v for k, v in call.items()}
            given, unit = names.with_unit(names.DELAY, inner)
            delay = number(given)
            if delay is not None and at is not None:
                at = _later(at, delay, unit or ("ms" if at[1] else None))
            since = at if delay is not None else began
            self.gathered.lines += found
            problem = self._object(call, since, depth + 1)
            found = True
            if problem not in (None, NO_TOKENS):
                self.gathered.problems[problem] += 1

    def _request(
        self, fields: Mapping[str, Any], prompt: float | None, output: float | None, session: Moment | None
    ) -> str | None:
        if names.is_other(first_of(names.KIND, fields), first_of(names.PATH, fields)):
            self.gathered.other += 1
            return None
        if not self._matches(fields):
            return None
        if names.has_failed(first_of(names.STATUS, fields), first_of(names.ERROR, fields)):
            self.gathered.failed += 1
            return None
        if prompt is None or output is None:
            return NO_TOKENS
        time = self._time(fields, session)
        if time is None:
            return NO_TIME
        if "inputtokens" in fields and prompt == number(fields["inputtokens"]):
            prompt += sum(number(fields.get(name)) or 0.0 for name in names.BESIDE_INPUT)
        if output == 0 and prompt >= 1:
            self.gathered.failed += 1
            return None
        problem = token_problem(prompt, output)
        if problem is None:
            cached = count(names.CACHED, fields)
            ids = fields.get("hashids") or fields.get("blockhashes")
            self._expected = self._expected or _expected_unit(fields)
            self._rows.append(
                _Row(
                    time=time[0], known_s=time[1], prompt=int(prompt), output=int(output),
                    cached=UNKNOWN if cached is None else int(min(max(cached, 0.0), prompt)),
                    ids=tuple(i for i in ids if isinstance(i, int | str)) if isinstance(ids, list) else (),
                )
            )  # fmt: skip
            size = number(fields.get("blocksize"))
            if size is not None and size >= 1 and self.options.block_tokens is None:
                self._block_tokens = int(min(size, 1 << 20))
            if len(self._rows) >= (BATCH if self._settled else FIRST_BATCH):
                self.flush()
        return problem

    def _matches(self, fields: Mapping[str, Any]) -> bool:
        for name, value in self.options.match.items():
            given = fields.get(canonical(name))
            if given is None and canonical(name) in names.MODEL:
                given = first_of(names.MODEL, fields)
            if str(given) != value:
                self.gathered.unmatched += 1
                return False
        model = first_of(names.MODEL, fields)
        if isinstance(model, str) and (model in self.gathered.models or len(self.gathered.models) < MAX_MODELS):
            self.gathered.models[model] += 1
        return True

    def _time(self, fields: Mapping[str, Any], session: Moment | None) -> Moment | None:
        for name in names.TIME:
            if fields.get(name) is not None:
                return self._moment(fields[name], None)
        for name, value in fields.items():
            found = names.time_name(name)
            if found is not None and value is not None:
                return self._moment(value, found[1])
        if session is None:
            return None
        since, unit = names.with_unit(names.SINCE_SESSION, fields)
        return _later(session, number(since) or 0.0, unit)

    def _moment(self, value: Any, unit: str | None) -> Moment | None:
        if isinstance(value, str):
            seconds = iso_seconds(value)
            if seconds is not None and not value.strip().isdigit():
                return seconds, True
            try:
                value = float(value)
            except ValueError:
                return None
        found = number(value)
        if found is None:
            return None
        unit = self.options.time_unit or unit
        return (found, False) if unit is None else (found * TIME_UNITS[unit], True)

    def flush(self) -> None:
        """Hand over what was read so far."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        if not self._settled:
            self._settle(rows)
        unit_s = self._unit_s or 1.0
        held = []
        for row in rows:
            seconds = row.time if row.known_s else row.time * unit_s
            if not believable(seconds):
                self.gathered.problems[NO_TIME] += 1
                continue
            held.append((seconds, row.prompt, row.output, *self._cached(row)))
        if not held:
            return
        times, prompt, output, cached, places = zip(*held, strict=True)
        known, blocks_at = np.array(cached, dtype=np.int32), np.array(places, dtype=np.int32)
        self.gathered.add(
            np.array(times),
            np.array(prompt, dtype=np.int32),
            np.array(output, dtype=np.int32),
            None if bool(np.all(known == UNKNOWN)) else known,
            None if bool(np.all(blocks_at == UNKNOWN)) else blocks_at,
        )

    def _settle(self, rows: list[_Row]) -> None:
        """Recognise the units by the first requests."""
        self._settled = True
        numeric = np.array([row.time for row in rows if not row.known_s])
        if numeric.size:
            self._unit_s, said = recognised_unit(self.name, numeric, expected=self._expected)
            self.assumptions += said
        hashed = [(row.prompt, len(row.ids)) for row in rows if row.ids]
        if not hashed:
            return
        size = self.options.block_tokens or self._block_tokens
        if size is None:
            prompts, counts = np.array(hashed, dtype=np.int32).T
            size = block_tokens(prompts, counts)
            if size is not None:
                self.assumptions.append(f"block hashes are of {size} tokens each, as prompts and their blocks say")
        if size is None:
            self.assumptions.append(
                "how many tokens a block hash stands for is not clear: shared prefixes are left out (--block-tokens)"
            )
        self._block_tokens = size

    def _cached(self, row: _Row) -> tuple[int, int]:
        """Prompt tokens that an earlier request had computed: as the server says, or by its blocks' hashes; and the
        place of these among the blocks of all prompts.
        """
        if row.cached != UNKNOWN or not row.ids or self._block_tokens is None:
            return row.cached, UNKNOWN
        known, place = self._blocks.take(row.ids, row.prompt)
        return min(known * self._block_tokens, row.prompt), place

    def end(self) -> list[str]:
        """Hand over the last requests; what was assumed."""
        self.flush()
        if self._block_tokens is not None:
            self.gathered.blocks = self._blocks.prompts(self._block_tokens)
        return self.assumptions


def _later(moment: Moment, delay: float, unit: str | None) -> Moment:
    """A moment so much later; without a unit in that of the moment."""
    at, known_s = moment
    return at + delay * (TIME_UNITS[unit] if unit is not None and known_s else 1.0), known_s


def read_jsonl(name: str, first: bytes, pieces: Iterator[bytes], gathered: Gathered, options: ReadOptions) -> list[str]:
    """Read a log of one object per line into `gathered`; returns what was assumed.

    `first` is its beginning, `pieces` the rest; lines that are no request are counted among the problems.

    Raises:
        InputError: its times may be in several units.
    """
    reader = JsonRequests(name=name, gathered=gathered, options=options)
    for block, cut_off in whole_lines(pieces, first):
        lines = [line for line in block.split(b"\n") if line.strip()]
        for i, line in enumerate(lines):
            reader.line(line, cut_off=cut_off and i == len(lines) - 1)
    return reader.end()


def read_document(name: str, content: Any, gathered: Gathered, options: ReadOptions) -> list[str]:
    """Read one JSON document, a list of requests or an object that holds lists of them, as `read_jsonl` does."""
    reader = JsonRequests(name=name, gathered=gathered, options=options)
    for item in _requests_of(content):
        reader.value(item)
    return reader.end()


_WRAPPERS = ("data", "requests", "records", "logs", "rows", "items", "results", "hits", "generations", "traces")


def _holds_all(content: Mapping[str, Any]) -> bool:
    """Whether an object is what a store of traces or logs answers: of OpenTelemetry, Tempo, Elasticsearch, Loki."""
    data = content.get("data")
    return bool(content.keys() & {"resourceSpans", "batches", "hits"}) or (
        isinstance(data, dict) and data.get("resultType") == "streams"
    )


def _requests_of(content: Any, depth: int = 0) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict) and depth < DEPTH:
        spans = [
            span
            for resource in content.get("resourceSpans") or content.get("batches") or ()
            if isinstance(resource, dict)
            for scope in resource.get("scopeSpans") or ()
            if isinstance(scope, dict)
            for span in scope.get("spans") or ()
        ]
        if spans:
            return [span for span in spans if isinstance(span, dict) and counts(span)]
        if content.get("resultType") == "streams":  # of Loki: times in nanoseconds, and the lines as they were logged
            held = [s.get("values") for s in content.get("result") or () if isinstance(s, dict)]
            pairs = [pair for values in held for pair in values or () if isinstance(pair, list) and len(pair) >= 2]
            return [{"timestamp": number(pair[0]), "line": pair[1]} for pair in pairs]
        for key in _WRAPPERS:
            inner = content.get(key)
            if isinstance(inner, list | dict):
                return _requests_of(inner, depth + 1)
    return [content]


def _expected_unit(fields: Mapping[str, Any]) -> str | None:
    """The unit that logs with such fields are known for."""
    if "hashids" not in fields:
        return "s" if "arrivedat" in fields or "elapsedtime" in fields else None
    return "s" if "chatid" in fields or "parentchatid" in fields else "ms"
