"""What request logs call a time, token counts and outcomes, whoever writes them.

Names are compared without case, spaces and punctuation: `startTime`, `start_time` and `Start time` are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from autotune.traffic.options import TIME_UNITS

TIME = (
    "arrivaltime", "arrivedat", "arrivaltimestamp", "starttime", "requeststart", "requesttime", "requesttimestamp",
    "requeststarttime", "requestcreatedat", "startedat", "timestamp", "time", "ts", "datetime", "eventtime",
    "receivedat", "created", "createdat", "arrival", "loggingtime",
)  # fmt: skip
"""When a request came; the first that is there counts."""
PROMPT = (
    "nativetokensprompt", "attributesllmtokencountprompt",
    "inputlength", "prompttokens", "inputtokens", "contexttokens", "requesttokens", "isl", "numprefilltokens",
    "promptsize", "inputtokencount", "prompttokencount", "numprompttokens", "numinputtokens", "promptlength",
    "promptlen", "inputlen", "usageprompttokens", "inputsequencelength", "genaiusageinputtokens",
    "genaiusageprompttokens", "llmusageprompttokens", "llmtokencountprompt", "genaitokensinput", "llminputtoken",
    "tokensprompt", "tokensin", "inputtokennum", "prompttoken", "prefilltokens", "promptevalcount",
)  # fmt: skip
OUTPUT = (
    "nativetokenscompletion", "attributesllmtokencountcompletion",
    "outputlength", "completiontokens", "outputtokens", "generatedtokens", "responsetokens", "osl", "numdecodetokens",
    "tokensize", "outputtokencount", "completiontokencount", "candidatestokencount", "generationtokens",
    "numoutputtokens", "numgeneratedtokens", "numcompletiontokens", "outputlen", "usagecompletiontokens",
    "outputsequencelength", "genaiusageoutputtokens", "genaiusagecompletiontokens", "llmusagecompletiontokens",
    "llmtokencountcompletion", "genaitokensoutput", "llmoutputtoken", "tokenscompletion", "tokensout",
    "outputtokennum", "completiontoken", "decodetokens", "evalcount", "responselength",
)  # fmt: skip
CACHED = (
    "cachedtokens", "cachedprompttokens", "cachedinputtokens", "cachereadinputtokens", "prompttokenscached",
    "numcachedtokens", "prompcachehittokens", "promptcachehittokens", "genaiusagecachereadinputtokens",
)  # fmt: skip
"""Prompt tokens that were found in a cache."""
BESIDE_INPUT = ("cachereadinputtokens", "cachecreationinputtokens")
"""What Anthropic's `input_tokens` does not count, though it is of the prompt."""
SHORT_PROMPT, SHORT_OUTPUT = (*PROMPT, "input", "in"), (*OUTPUT, "output", "out")
"""With names that are taken for counts only where they hold numbers."""
STATUS = (
    "status", "statuscode", "responsecode", "httpstatus", "httpstatuscode", "httpresponsestatuscode", "responsestatus",
    "responsestatuscode", "success",
)  # fmt: skip
ERROR = ("error", "errormessage", "exception", "errortype")
MODEL = (
    "modelname", "model", "modelgroup", "requestmodel", "genairequestmodel", "genairesponsemodel", "servedmodelname",
)  # fmt: skip
KIND = ("calltype", "genaioperationname", "operation", "operationname", "method", "requestmethod", "event")
"""What a line is about."""
PATH = ("path", "requestpath", "url", "uri", "endpoint", "route", "xenvoyoriginalpath")
CALLS = (
    "calls", "requests", "turns", "steps", "spans", "llmcalls", "children", "observations", "subagents", "runs",
    "data", "records", "logs", "rows", "items", "results", "generations", "traces",
)  # fmt: skip
"""Lists of further requests within a line, as sessions of agents have them."""
SINCE_SESSION = ("t", "offset", "timeoffset", "relativetime", "elapsed", "startoffset")
"""When a call came, counted from its session's start; also with a unit at their end, as in `offset_ms`."""
DELAY = ("delay", "thinktime")
"""How long after the call before, likewise."""

_FAILED = frozenset(
    (
        "failure", "failed", "fail", "error", "errored", "aborted", "abort", "cancelled", "canceled", "timeout",
        "timedout", "rejected", "statuscodeerror", "internalerror", "false",
    )
)  # fmt: skip
FAILED_FROM = 400
"""HTTP status from which a request was not served."""
_OTHER_KINDS = re.compile(
    r"request\.received|embed|rerank|moderation|image|speech|transcription|health|tool|agent|retriev|^(get|head|options|put|delete)$"
)
_OTHER_PATHS = re.compile(r"/(health|ping|metrics|models|version|embeddings|rerank|score|tokenize|detokenize)\b")
_UNIT = re.compile(r"(?P<base>.*?)_?(?P<unit>unixnanos?|ms|us|ns|millis|milliseconds|seconds|secs?|s)$")
_UNIT_NAMES = {"unixnano": "ns", "unixnanos": "ns", "millis": "ms", "milliseconds": "ms"}


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """A name without case, spaces and punctuation."""
    return "".join(c for c in name.lower() if c.isalnum())


@lru_cache(maxsize=4096)
def time_name(name: str) -> tuple[str, str | None] | None:
    """A canonical name as one of `TIME`, and the unit that it ends in; None: it is no time."""
    if name in TIME:
        return name, None
    found = _UNIT.match(name)
    if found is None or found["base"] not in TIME:
        return None
    unit = _UNIT_NAMES.get(found["unit"], found["unit"])
    return found["base"], unit if unit in TIME_UNITS else "s"


def with_unit(known: tuple[str, ...], fields: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The first field of these names, with or without a unit at its end, and the unit; None: there is none."""
    found = first_of(known, fields)
    if found is not None:
        return found, None
    for name, value in fields.items():
        said = _UNIT.match(name)
        if said is not None and said["base"] in known and value is not None:
            unit = _UNIT_NAMES.get(said["unit"], said["unit"])
            return value, unit if unit in TIME_UNITS else "s"
    return None, None


def first_of(names: Iterable[str], fields: Mapping[str, Any]) -> Any:
    """The first field that there is; None: there is none."""
    for name in names:
        value = fields.get(name)
        if value is not None:
            return value
    return None


def has_failed(status: Any, error: Any) -> bool:
    """Whether an outcome says that a request was not served."""
    if isinstance(status, Mapping):  # OpenTelemetry: 0 unset, 1 ok, 2 error
        code = status.get("code")
        return code == 2 or (isinstance(code, str) and canonical(code) in _FAILED)
    if isinstance(status, bool):
        return not status
    if isinstance(status, str):
        word = status.strip()
        if word.isdecimal():
            return len(word) < 10 and int(word) >= FAILED_FROM
        if canonical(word) in _FAILED:
            return True
    elif isinstance(status, int | float) and status >= FAILED_FROM:
        return True
    return error not in (None, False, "", "null", "None", "none", "-", [], {})


def is_other(kind: Any, path: Any) -> bool:
    """Whether a line is about something else than text that was asked for: embeddings, health checks, tools."""
    if isinstance(kind, str) and _OTHER_KINDS.search(kind.lower()):
        return True
    return isinstance(path, str) and _OTHER_PATHS.search(path.lower()) is not None
