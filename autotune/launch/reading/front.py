"""Files of fronts: which prompts go straight to the decode pool (conditional disaggregation), which servers there are.

`trtllm-serve disaggregated -c FILE`: FILE says how many servers of each role there are, and of what sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from autotune.engines.option_reader import Command
from autotune.launch.reading.containers import Container, Place
from costmodel.errors import InputError

USUAL_THRESHOLD = 2048
"""Of Dynamo's router where nothing else is said."""
_SETTINGS = (
    (re.compile(r"\bmax_local_prefill_length\W{1,4}(\d{1,9})\b"), 0),
    (re.compile(r"\bnonCachedTokens\W{1,4}(\d{1,9})\b"), -1),
)
_ROUTER = re.compile(r"--router-conditional-disagg\b|\bDYN_ROUTER_CONDITIONAL_DISAGG")
_OFF = re.compile(
    r"--no-router-conditional-disagg\b|"
    r"\bDYN_ROUTER_CONDITIONAL_DISAGG\b\W{1,20}(?:value\W{1,4})?(?:0|false|no|off)\b",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
_THRESHOLD = re.compile(r"eff[_-]isl[_-]threshold\W{1,20}(?:value\W{1,4})?(\d{1,9})\b", re.IGNORECASE)


def setting_of_front(texts: Iterable[str]) -> int | None:
    """The most tokens to compute of prompts that a front sends to the decode pool; None: its files say nothing of it.

    Dynamo's and llm-d's thresholds are the first number of tokens that goes to the prefill pool.
    """
    for text in (_COMMENT.sub("", text) for text in texts):
        for pattern, less in _SETTINGS:
            if found := pattern.search(text):
                return max(int(found[1]) + less, 0)
        if _ROUTER.search(text) and not _OFF.search(text):
            found = _THRESHOLD.search(text)
            return max((USUAL_THRESHOLD if found is None else int(found[1])) - 1, 0)
    return None


SIDES = {"context_servers": "prefill", "generation_servers": "decode"}
ROUTERS = ("disaggregated", "disaggregated_mpi_worker")
"""Words of `trtllm-serve` that start no server of their own."""
_OF_THE_ROUTER = frozenset((
    *SIDES, "hostname", "port", "model", "max_retries", "perf_metrics_max_requests", "conditional_disagg_config",
    "disagg_cluster", "num_instances", "urls", "router", "schedule_style",
))  # fmt: skip


def file_of_router(command: Command) -> str | None:
    """The file that a command of such a router names; empty where it names none, None where it is another command."""
    if command.engine != "trtllm" or command.model not in ROUTERS:
        return None
    for option in command.unknown:  # the engine's own options are of its servers
        flag, _, value = option.replace("=", " ", 1).partition(" ")
        if flag in ("-c", "--config_file", "--config-file"):
            return value
    return ""


def is_pools(document: Any) -> bool:
    """Whether a file is one of those."""
    return isinstance(document, Mapping) and document.keys() >= SIDES.keys()


def pools(document: Mapping[str, Any], where: str) -> tuple[list[Container], dict[str, str]]:
    """The servers of each role, and the files that their commands name.

    Raises:
        InputError: the file says where servers are and not what they are.
    """
    shared = _fields(document)
    found, files = [], {}
    for side, role in SIDES.items():
        table = document[side] if isinstance(document[side], Mapping) else {}
        own = _fields(table)
        if not any(name.endswith("parallel_size") for name in (*own, *shared)):
            raise InputError.single(
                f"{where}: {side}", "says where servers are, not how they are started: import their own commands"
            )
        name = f"{side}.yaml"
        files[name] = yaml.safe_dump(shared | own)
        words = ("trtllm-serve", str(document.get("model", "")), "--extra_llm_api_options", name)
        place = Place(copies=_copies(table), role=role)
        found.append(Container(words=tuple(w for w in words if w), env={}, place=place, version=None))
    return found, files


def _fields(table: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in table.items() if name not in _OF_THE_ROUTER}


def _copies(table: Mapping[str, Any]) -> int:
    number, urls = table.get("num_instances"), table.get("urls")
    if isinstance(number, int) and 0 < number < 1_000_000:
        return number
    return len(urls) if isinstance(urls, Sequence) and not isinstance(urls, str) and urls else 1
