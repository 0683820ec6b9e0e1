"""A study file made of a few answers: for questions that are asked before there is a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autotune.engines import ANY, ENGINES, listed
from costmodel.errors import InputError, Problem

NEEDED = ("model", "gpus", "gpu", "isl", "osl")
"""What has no default."""


def quick_study(given: Mapping[str, Any]) -> str:
    """The text of a commented study file.

    Args:
        given: `model`, `gpus`, `gpu`, `isl`, `osl`; and where they are not None `engine`, `ttft`, `tpot` (ms), `rate`
            (requests/s), `concurrency`, `baseline`.

    Raises:
        InputError: each that is needed and not given, by its option.
    """
    missing = [name for name in NEEDED if given.get(name) is None]
    if missing:
        raise InputError(Problem(path=f"--{name}", message="must be given, where no study file is") for name in missing)
    model, gpus, gpu = given["model"], given["gpus"], given["gpu"]
    name = f"{str(model).rstrip('/').rpartition('/')[2].removesuffix('.json')}-{gpus}x{gpu}"
    lines = [
        f"name = {_text(name)}",
        _line("engine", given.get("engine") or next(iter(ENGINES)), listed([*ENGINES, ANY], "or")),
        _line("model", model, "catalog name (autotune catalog), or the path of a config.json"),
        "",
        "[cluster]",
        _line("gpus", gpus, "every plan uses them all"),
        _line("gpu", gpu, "catalog name"),
        "",
        "[workload]",
        _line("isl", given["isl"], "prompt tokens, or { min = 3000, max = 5000 }"),
        _line("osl", given["osl"], "output tokens"),
        _maybe("request_rate_per_s", given.get("rate"), "20.0", "requests/s; without it, the most within the limits"),
        _maybe("concurrency", given.get("concurrency"), "512", "or requests in flight"),
        "",
        "[constraints]",
        _maybe("ttft_ms", given.get("ttft"), "5000", "mean time to the first token, queueing included"),
        _maybe("tpot_ms", given.get("tpot"), "50", "mean time per further token"),
        "# ttft_p95_ms = 8000".ljust(35) + " # limits on percentiles are simulated",
        "",
        "[objective]",
        _line("maximize", "output_tokens_per_s_per_gpu", "or minimize = ttft_s, tpot_s, gpus, usd_per_million_tokens"),
        "",
    ]
    if given.get("baseline") is None:
        lines += ["# [baseline]", '# plan = "R4 TP8"'.ljust(35) + " # what runs today: every plan is held against it"]
    else:
        lines += ["[baseline]", _line("plan", given["baseline"], "what runs today: every plan is held against it")]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, says: str) -> str:
    return f"{key} = {_text(value)}".ljust(35) + f" # {says}"


def _maybe(key: str, value: Any, example: str, says: str) -> str:
    return _line(key, value, says) if value is not None else f"# {key} = {example}".ljust(35) + f" # {says}"


def _text(value: Any) -> str:
    """A TOML value: a string as JSON writes it is one of TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.12g}"
