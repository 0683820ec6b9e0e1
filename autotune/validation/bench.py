"""Results of the engines' own benchmarks as measured runs: `vllm bench serve` JSON, SGLang's bench_serving JSONL.

Such a file says what was measured but not on what: the study gives model, GPU and engine, the plan the layout. What
an exported benchmark drove it says in the result itself (`--metadata`, `--tag`): plan, replicas, lengths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.engines import ENGINES
from autotune.scoring.knob_grid import weights
from autotune.space import Candidate, format_plan
from autotune.study import Study, cluster_of
from autotune.tuning import score_plan
from costmodel.errors import InputError, Problem
from costmodel.estimate.batch import PlanEntry
from costmodel.files import read_file
from costmodel.measured.runs import BATCHED_TOKENS, MAX_NUM_SEQS, Run

MAX_BENCH_BYTES = 200_000_000
SUFFIXES = (".json", ".jsonl")
_FACTS = ("autotune_plan", "autotune_replicas", "autotune_lengths")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchKnobs:
    """How the servers were started; what is not known is as they start by themselves."""

    batched_tokens: float = BATCHED_TOKENS
    max_num_seqs: float = MAX_NUM_SEQS
    weight_dtype: str | None = None
    kv_dtype: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One run of a benchmark, of the whole plan: what was driven of it is scaled up to all replicas."""

    run: Run
    plan: str
    """Full plan string."""
    output_tokens_per_s: float
    """Over the whole run, its start and end included; NaN where the file has no duration."""
    total_tokens_per_s: float
    failed: int
    """Requests without an answer."""
    replicas: int
    """That were driven."""


def read_bench(path: Path, study: Study, plan: str | None) -> tuple[Run, ...]:
    """Runs of one result file. Raises `InputError` as `read_results`."""
    return tuple(result.run for result in read_results(path, study, plan))


def read_results(
    path: Path, study: Study, plan: str | None, knobs: BenchKnobs | None = None, *, fallback: str | None = None
) -> tuple[BenchResult, ...]:
    """Every run of one result file.

    Args:
        path: of the file.
        study: that the plan was exported from.
        plan: that ran. None: what the result says, else `fallback`.
        knobs: how it was started.
        fallback: a plan for results that name none.

    Raises:
        InputError: not readable, not such a file, no plan, a plan without meaning on the study's GPUs, or another than
            the result names.
    """
    problems: list[Problem] = []
    results = []
    for number, record in _records(path):
        at = f"{path}:{number}"
        facts = _facts(record)
        candidate = _candidate(study, plan, facts.get("autotune_plan"), fallback, at)
        result = _result(record, at, study, candidate, facts, knobs or BenchKnobs(), problems)
        if result is not None:
            results.append(result)
    if not results and not problems:
        problems.append(Problem(path=str(path), message="must hold at least one result, got none"))
    if problems:
        raise InputError(problems)
    return tuple(results)


def _records(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Objects of the file: one JSON document, a list of them, or one per line."""
    try:
        text = read_file(path, MAX_BENCH_BYTES).decode("utf-8-sig")
        if path.suffix == ".jsonl":
            values = [(i, json.loads(line)) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
        else:
            read = json.loads(text)
            values = list(enumerate(read if isinstance(read, list) else [read], start=1))
    except InputError:
        raise
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError.single(str(path), f"is not JSON: {error}") from error
    wrong = [Problem(path=f"{path}:{i}", message="must be an object") for i, v in values if not isinstance(v, dict)]
    if wrong:
        raise InputError(wrong)
    return values


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    """What an exported benchmark says of itself: fields of vLLM's result, parts of SGLang's tag."""
    tag = record.get("tag")
    parts = [part.partition("=") for part in tag.split(";")] if isinstance(tag, str) else []
    found = {name: value for name, _, value in parts} | {k: v for k, v in record.items() if isinstance(v, str)}
    return {name: found[name] for name in _FACTS if name in found}


def _candidate(study: Study, given: str | None, named: str | None, fallback: str | None, at: str) -> Candidate:
    def read(text: str, path: str) -> Candidate:
        return score_plan(study, text, path=path).resolution.candidate

    if given is None and named is None and fallback is None:
        raise InputError.single("--plan", f"is required: {at} does not say which plan it measured")
    if given is None:
        return read(named, at) if named is not None else read(str(fallback), "plan")
    wanted = read(given, "--plan")
    if named is not None and read(named, at) != wanted:
        raise InputError.single(
            "--plan", f"must be what was measured: {at} says {named}, got {format_plan(wanted.layout, wanted.engine)}"
        )
    return wanted


def _result(
    record: Mapping[str, Any],
    at: str,
    study: Study,
    candidate: Candidate,
    facts: Mapping[str, str],
    knobs: BenchKnobs,
    problems: list[Problem],
) -> BenchResult | None:
    run = _run(record, at, study, candidate, knobs, problems)
    if run is None:
        return None
    driven = facts.get("autotune_replicas", str(candidate.layout.replicas))
    if not driven.isdigit() or not 1 <= int(driven) <= candidate.layout.replicas:
        problems.append(
            Problem(path=at, message=f"must drive 1 to {candidate.layout.replicas} replicas, says {driven!r}")
        )
        return None
    share = candidate.layout.replicas / int(driven)
    duration_s = _number(record, "duration")
    per_s = share / duration_s if duration_s > 0 else math.nan
    outputs = _number(record, "total_output_tokens")
    if "autotune_lengths" in facts:
        run = replace(run, same_lengths=facts["autotune_lengths"] == "fixed")
    if _FACTS[0] in facts:
        run = replace(run, prefix_hit_frac=study.workload.prefix_cache_hit_frac)
    failed = _number(record, "failed")
    return BenchResult(
        run=replace(run, concurrency=run.concurrency * share),
        plan=format_plan(candidate.layout, candidate.engine),
        output_tokens_per_s=outputs * per_s,
        total_tokens_per_s=(outputs + _number(record, "total_input_tokens")) * per_s,
        failed=int(failed) if failed > 0 else 0,
        replicas=int(driven),
    )


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else math.nan  # type: ignore[arg-type]


def _run(
    record: Mapping[str, Any], at: str, study: Study, candidate: Candidate, knobs: BenchKnobs, problems: list[Problem]
) -> Run | None:
    completed = _number(record, "completed") or math.nan
    isl = _number(record, "total_input_tokens") / completed
    osl = _number(record, "total_output_tokens") / completed
    ttft_s, tpot_s = _number(record, "mean_ttft_ms") * 1e-3, _number(record, "mean_tpot_ms") * 1e-3
    if not (isl >= 1 and osl >= 1 and tpot_s > 0):
        names = "completed, total_input_tokens, total_output_tokens, mean_tpot_ms"
        problems.append(Problem(path=at, message=f"must have positive {names}"))
        return None
    concurrency = _number(record, "max_concurrency")
    if not concurrency > 0 and _number(record, "duration") > 0:
        # open arrivals: Little's law over the whole run
        concurrency = completed / _number(record, "duration") * (ttft_s + (osl - 1.0) * tpot_s)
    if not concurrency > 0:
        problems.append(Problem(path=at, message="must have max_concurrency, or duration and mean_ttft_ms"))
        return None
    entry = PlanEntry(
        arch=weights(study.arch, knobs.weight_dtype),
        cluster=cluster_of(study, candidate.gpu, candidate.layout.gpus),
        engine=ENGINES[candidate.engine].traits,
        layout=candidate.layout,
        kv_dtype=knobs.kv_dtype,
        engine_version=study.engine_version,
    )
    return Run(
        id=at,
        gpu=entry.cluster.gpu.name,
        engine=candidate.engine,
        engine_version=study.engine_version or "",
        model=study.arch.name,
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
        batched_tokens=knobs.batched_tokens,
        max_num_seqs=knobs.max_num_seqs,
    )


def _all_equal(lengths: Any) -> bool:
    """Whether detailed results list one length for every request; without the list, lengths are taken to vary."""
    return isinstance(lengths, list) and len(lengths) > 0 and all(length == lengths[0] for length in lengths)
