"""The fields of a JSON object by what they are called, wherever they lie in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from autotune.traffic import names
from autotune.traffic.names import canonical

DEPTH = 5
NODES = 2_000
"""Objects of a line that are looked into."""
WITHIN = frozenset(
    ("usage", "response", "body", "request", "attributes", "metadata", "metrics", "data", "result", "payload",
     "usageobject", "usagedetails", "prompttokensdetails", "inputtokensdetails", "message", "llm", "tokens", "token",
     "resource", "fields", "jsonpayload", "properties", "standardloggingobject", "log", "record", "event", "params",
     "stats", "timing", "out", "metainfo", "aiproxy", "proxy", "timings", "usagemetadata", "http", "labels", "ai",
     "meta", "tokenusage", "genai", "value",
     "fullresponse", "source", "tags")
)  # fmt: skip
"""Objects within a line in which fields may lie, as in `{"response": {"body": {"usage": {…}}}}`."""
_SHORT = frozenset(("input", "output", "in", "out"))
"""Names that mostly hold texts: only numbers are counts."""
_TEXTS = frozenset(("log", "message", "msg", "body", "line"))
"""In which collectors of logs keep the line that was written."""


def counts(call: Mapping[str, Any]) -> bool:
    """Whether a call says how many tokens it had, or holds calls."""
    fields, lists = flat(call)
    return bool(lists) or count(names.SHORT_PROMPT, fields) is not None


def count(known: tuple[str, ...], fields: Mapping[str, Any]) -> float | None:
    """The first field of these names that holds a number."""
    for name in known:
        found = number(fields.get(name))
        if found is not None:
            return found
    return None


def flat(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[list[Mapping[str, Any]]]]:
    """Fields by canonical name, those outside before those within, and the lists of further requests."""
    fields: dict[str, Any] = {}
    lists: list[list[Mapping[str, Any]]] = []
    level, visited = [content], 0
    for _ in range(DEPTH):
        below: list[Mapping[str, Any]] = []
        for node in level:
            visited += 1
            if visited > NODES:
                return fields, lists
            for key, value in node.items():
                name = canonical(key)
                if name in _SHORT and not isinstance(value, dict):
                    if number(value) is not None:
                        fields.setdefault(name, value)
                elif name in _SHORT - WITHIN:  # beside what was said, which may hold anything
                    below.append({k: v for k, v in value.items() if canonical(k) in (*names.PROMPT, *names.OUTPUT)})
                elif name in _TEXTS and isinstance(value, str) and value[:1] == "{":
                    below.append(_read(value))
                elif isinstance(value, dict):
                    if "value" in value and (name in names.PROMPT or name in names.OUTPUT):
                        fields.setdefault(name, value["value"])
                    elif name in WITHIN:
                        below.append(value)
                    elif name in ("error", "status"):
                        fields.setdefault(name, value)
                elif isinstance(value, list):
                    if name in ("attributes", "tags"):
                        below.append(attributes(value))
                    elif name in names.CALLS and (inner := [i for i in value if isinstance(i, dict)]):
                        lists.append([*inner])
                    else:
                        fields.setdefault(name, value)
                elif value is not None:
                    fields.setdefault(name, value)
        level = below
    return fields, lists


def _read(text: str) -> Mapping[str, Any]:
    """The object that a text holds; empty where it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def attributes(pairs: Any) -> dict[str, Any]:
    """OpenTelemetry's attributes, `{"key": …, "value": {"intValue": "5"}}`, as an object."""
    if isinstance(pairs, Mapping):
        return dict(pairs)
    out: dict[str, Any] = {}
    for pair in pairs if isinstance(pairs, list) else ():
        if isinstance(pair, dict) and isinstance(pair.get("key"), str):
            value = pair.get("value")
            inner = next(iter(value.values()), None) if isinstance(value, dict) else value
            out[pair["key"]] = int(inner) if isinstance(inner, str) and inner.isdecimal() and len(inner) < 19 else inner
    return out


def number(value: Any) -> float | None:
    """A finite number, also one that is written as text; None: it is none."""
    if isinstance(value, str) and len(value) < 20 and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if isfinite(found) else None
