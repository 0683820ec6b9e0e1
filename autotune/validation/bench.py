"""Results of the engines' own benchmarks as measured runs: `vllm bench serve` JSON, SGLang's bench_serving JSONL.

Such a file says what was measured but not on what: the study gives model, GPU and engine, the plan the layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.space import parse_plan, resolve
from autotune.study import Study
from costmodel.errors import InputError, Problem
from costmodel.estimate import PlanEntry
from costmodel.runs import Run

MAX_BENCH_BYTES = 200_000_000
SUFFIXES = (".json", ".jsonl")


def read_bench(path: Path, study: Study, plan: str) -> tuple[Run, ...]:
    """Runs of one result file.

    Raises:
        InputError: not readable, not such a file, or a plan without meaning on the study's GPUs.
    """
    found = resolve(parse_plan(plan), arch=study.arch, gpus=study.cluster.gpus, engine=study.engine)
    entry = PlanEntry(
        arch=study.arch,
        cluster=study.cluster,
        engine=found.candidate.engine,
        layout=found.candidate.layout,
        engine_version=study.engine_version,
    )
    problems: list[Problem] = []
    runs = []
    for number, record in _records(path):
        run = _run(record, f"{path}:{number}", entry, problems)
        if run is not None:
            runs.append(run)
    if not runs and not problems:
        problems.append(Problem(path=str(path), message="must hold at least one result, got none"))
    if problems:
        raise InputError(problems)
    return tuple(runs)


def _records(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Objects of the file: one JSON document, a list of them, or one per line."""
    try:
        if path.stat().st_size > MAX_BENCH_BYTES:
            raise InputError.single(str(path), f"must be at most {MAX_BENCH_BYTES} bytes, is larger")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            values = [(i, json.loads(line)) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
        else:
            read = json.loads(text)
            values = list(enumerate(read if isinstance(read, list) else [read], start=1))
    except OSError as error:
        raise InputError.single(str(path), f"cannot be read: {error.strerror}") from error
    except InputError:
        raise
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError.single(str(path), f"is not JSON: {error}") from error
    wrong = [Problem(path=f"{path}:{i}", message="must be an object") for i, v in values if not isinstance(v, dict)]
    if wrong:
        raise InputError(wrong)
    return values


def _run(record: Mapping[str, Any], at: str, entry: PlanEntry, problems: list[Problem]) -> Run | None:
    def number(name: str) -> float:
        value = record.get(name)
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if usable else math.nan  # type: ignore[arg-type]

    completed = number("completed") or math.nan
    isl, osl = number("total_input_tokens") / completed, number("total_output_tokens") / completed
    ttft_s, tpot_s = number("mean_ttft_ms") * 1e-3, number("mean_tpot_ms") * 1e-3
    if not (isl >= 1 and osl >= 1 and tpot_s > 0):
        names = "completed, total_input_tokens, total_output_tokens, mean_tpot_ms"
        problems.append(Problem(path=at, message=f"must have positive {names}"))
        return None
    concurrency = number("max_concurrency")
    if not concurrency > 0 and number("duration") > 0:
        # open arrivals: Little's law over the whole run
        concurrency = completed / number("duration") * (ttft_s + (osl - 1.0) * tpot_s)
    if not concurrency > 0:
        problems.append(Problem(path=at, message="must have max_concurrency, or duration and mean_ttft_ms"))
        return None
    return Run(
        id=at,
        gpu=entry.cluster.gpu.name,
        engine=entry.engine,
        engine_version=entry.engine_version or "",
        model=entry.arch.name,
        precision="",
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        entry=entry,
        same_lengths=_all_equal(record.get("input_lens")) and _all_equal(record.get("output_lens")),
        mean_isl=isl,
        mean_osl=osl,
        ttft_s=ttft_s if ttft_s > 0 else math.nan,
        tpot_s=tpot_s,
    )


def _all_equal(lengths: Any) -> bool:
    """Whether detailed results list one length for every request; without the list, lengths are taken to vary."""
    return isinstance(lengths, list) and len(lengths) > 0 and all(length == lengths[0] for length in lengths)
