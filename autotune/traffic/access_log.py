"""Access logs as text, a request per line: a time, an HTTP request and its status, and fields as `name=value`.

Gateways for inference write token counts so: `tokens=150/75`, or a field for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from autotune.traffic.json_log import JsonRequests
from autotune.traffic.names import OUTPUT, PROMPT, canonical
from autotune.traffic.options import ReadOptions
from autotune.traffic.problems import MALFORMED
from autotune.traffic.requests import Gathered
from autotune.traffic.source import whole_lines

_FIELD = re.compile(r'(?P<name>[A-Za-z_][\w.@-]{0,60})=(?:"(?P<quoted>[^"]{0,500})"|(?P<plain>[^\s"]{1,500}))')
_TIME = re.compile(r"^\[?(?P<time>\d{4}-\d\d-\d\d[T ][\d:.,]{5,20}(?:Z|[+-]\d\d:?\d\d)?)\]?")
_WEB_TIME = re.compile(r"\[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:[\d:]{8} [+-]\d{4})\]")
_HTTP = re.compile(r'"(?P<method>[A-Z]{3,7}) (?P<path>\S{1,500})[^"]{0,20}"\s+(?P<status>\d{3})\b')
_TOKENS = re.compile(r"^(\d{1,8})/(\d{1,8})$")
LINES = 50
"""Of the beginning, by which a log of this kind is known."""


def fields_of(line: str) -> dict[str, object]:
    """What a line says, by name; empty where it is no line of such a log."""
    out: dict[str, object] = {
        m["name"]: m["plain"] if m["quoted"] is None else m["quoted"] for m in _FIELD.finditer(line)
    }
    tokens = _TOKENS.match(str(out.get("tokens", "")))
    if tokens is not None:
        out["input_tokens"], out["output_tokens"] = int(tokens[1]), int(tokens[2])
    when = _TIME.match(line) or _WEB_TIME.search(line)
    if when is not None:
        out["timestamp"] = when["time"].replace(",", ".")
    request = _HTTP.search(line)
    if request is not None:
        out |= {"path": request["path"], "status_code": int(request["status"])}
        if request["method"] != "POST":
            out["method"] = request["method"]
    return out


def looks_like_access_log(first: bytes) -> bool:
    """Whether one of the first lines has token counts as fields."""
    for line in first.split(b"\n", LINES)[:LINES]:
        found = {canonical(name) for name in fields_of(line[:8192].decode("utf-8", "replace"))}
        if found & set(PROMPT) and found & set(OUTPUT):
            return True
    return False


def read_access_log(
    name: str, first: bytes, pieces: Iterator[bytes], gathered: Gathered, options: ReadOptions
) -> list[str]:
    """Read such a log into `gathered`, as `read_jsonl` does."""
    reader = JsonRequests(name=name, gathered=gathered, options=options)
    for block, _ in whole_lines(pieces, first):
        for line in block.split(b"\n"):
            if not line.strip():
                continue
            found = fields_of(line[:8192].decode("utf-8", "replace"))
            if found:
                reader.value(found)
            else:
                gathered.lines += 1
                gathered.problems[MALFORMED] += 1
    reader.flush()
    return reader.assumptions
