"""Results of benchmarks as measured runs of a study's plan.

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
from autotune.scoring.knob_grid import engine_traits
from autotune.space import Candidate, format_plan
from autotune.space.pooled_planstring import is_pooled
from autotune.study import Study, cluster_of
from autotune.text.safe_yaml import read_yaml
from autotune.tuning import PlanResult, score_plan
from autotune.validation.bench_tools import reported_runs
from autotune.validation.consistency import contradictions, malformed
from autotune.validation.deployment import deployment
from autotune.validation.reported import Reported
from costmodel.arch import stored_in
from costmodel.errors import InputError, Problem
from costmodel.estimate.batch import PlanEntry
from costmodel.files import read_file
from costmodel.measured.runs import BATCHED_TOKENS, MAX_NUM_SEQS, Run

MAX_BENCH_BYTES = 200_000_000
SUFFIXES = (".json", ".jsonl", ".yaml", ".yml")
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
    """That were driven: of a disaggregated plan those of both pools, always all."""
    reported: Reported
    """As the tool has it, of what was driven."""
    notes: tuple[str, ...] = ()
    """What is to be said of how it was measured."""
    pooled: PlanResult | None = None
    """The plan, where it is disaggregated: then `run` is of its decode pool alone."""

    @property
    def teaches_nothing(self) -> str | None:
        """Why a calibration of one's own, which is of servers that prefill and decode a token a step, learns nothing
        from it; None: it does.
        """
        if self.pooled is not None:
            return f"is of the disaggregated plan {self.plan}, not of servers that prefill and decode"
        return "is of servers that decode speculatively" if self.reported.drafted else None

    @property
    def share(self) -> float:
        """Whole plan over what was driven."""
        return 1.0 if self.pooled is not None else self.run.entry.layout.replicas / self.replicas


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
        InputError: not readable, not such a file, no plan, a plan without meaning on the study's GPUs, or another plan
            or model than the result names.
    """
    problems: list[Problem] = []
    results = []
    for at, record, reported in reported_runs(_values(path), str(path)):
        if wrong := list(malformed(record)):
            problems += [Problem(path=at, message=message) for message in wrong]
            continue
        facts = _facts(record)
        candidate, pooled = _candidate(study, plan, facts.get("autotune_plan"), fallback, at)
        result = _result(reported, at, study, candidate, pooled, facts, knobs or BenchKnobs(), problems)
        if result is not None:
            results.append(result)
    if not results and not problems:
        problems.append(Problem(path=str(path), message="must hold at least one result, got none"))
    if problems:
        raise InputError(problems)
    return tuple(results)


def _values(path: Path) -> list[Any]:
    """What a file holds: one JSON or YAML document, a list of them, or one per line."""
    try:
        text = read_file(path, MAX_BENCH_BYTES).decode("utf-8-sig")
        if path.suffix in (".yaml", ".yml"):
            return read_yaml(text, str(path))
        values: list[Any] = []
        decoder, at = json.JSONDecoder(), 0
        text = text.strip()
        while at < len(text):  # one value, or one after the other, as `--append-result` writes them
            value, end = decoder.raw_decode(text, at)
            values.append(value)
            at = end + len(text[end : end + 1000]) - len(text[end : end + 1000].lstrip())
        return values[0] if len(values) == 1 and isinstance(values[0], list) else values
    except InputError:
        raise
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError.single(str(path), f"is not JSON, JSON lines or YAML: {error}") from error


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    """What an exported benchmark says of itself: fields of vLLM's result, parts of SGLang's tag."""
    tag = record.get("tag")
    parts = [part.partition("=") for part in tag.split(";")] if isinstance(tag, str) else []
    found = {name: value for name, _, value in parts} | {k: v for k, v in record.items() if isinstance(v, str)}
    return {name: found[name] for name in _FACTS if name in found}


_Measured = tuple[Candidate, PlanResult | None]
"""What a result is of; of a disaggregated plan its decode pool, and the plan."""


def _candidate(study: Study, given: str | None, named: str | None, fallback: str | None, at: str) -> _Measured:
    def read(text: str, path: str) -> _Measured:
        found = score_plan(study, text, path=path)
        pooled = found.result is not None and found.result.pools is not None
        if is_pooled(text) and not pooled:
            rules = "; ".join(v.message for v in found.resolution.violations)
            raise InputError.single(path, f"must be a plan that can run: {rules}")
        return found.resolution.candidate, found.result if pooled else None

    if given is None and named is None and fallback is None:
        raise InputError.single("--plan", f"is required: {at} does not say which plan it measured")
    if given is None:
        return read(named, at) if named is not None else read(str(fallback), "plan")
    wanted = read(given, "--plan")
    said = wanted if named is None else read(named, at)
    if said[0] != wanted[0] or _named(*said) != _named(*wanted):
        raise InputError.single("--plan", f"must be what was measured: {at} says {named}, got {_named(*wanted)}")
    return wanted


def _named(candidate: Candidate, pooled: PlanResult | None) -> str:
    return format_plan(candidate.layout, candidate.engine) if pooled is None else pooled.plan


def _result(  # noqa: PLR0913  # what was measured, of what, and what is wrong
    reported: Reported,
    at: str,
    study: Study,
    candidate: Candidate,
    pooled: PlanResult | None,
    facts: Mapping[str, str],
    knobs: BenchKnobs,
    problems: list[Problem],
) -> BenchResult | None:
    replicas, least = _replicas(candidate, pooled)
    driven = facts.get("autotune_replicas", str(replicas))
    if not driven.isdigit() or not least <= int(driven) <= replicas:
        wanted = f"{least} to {replicas} replicas" if least < replicas else f"all {replicas} replicas"
        problems.append(Problem(path=at, message=f"must drive {wanted}, says {driven!r}"))
        return None
    gpus = float(candidate.layout.gpus) if pooled is None else pooled.metrics["gpus"]
    if pooled is None and _FACTS[1] not in facts and reported.gpus == gpus / replicas:
        driven = "1"
    share = replicas / int(driven)
    gpus = gpus / share
    if reported.gpus > 0 and reported.gpus != gpus:
        message = (
            f"was measured on {reported.gpus:g} GPUs, {_named(candidate, pooled)} has {gpus:g}: give the plan that ran"
        )
        problems.append(Problem(path=at, message=message))
        return None
    outputs, total = _throughput(reported, gpus)
    requests_per_s = outputs / reported.osl if reported.osl > 0 else math.nan
    wrong = [Problem(path=at, message=message) for message in contradictions(reported, requests_per_s)]
    try:
        ran = deployment(reported, study, candidate, pooled)
    except InputError as error:
        wrong += [Problem(path=f"{at}: {p.path}", message=p.message) for p in error.problems]
    if wrong:
        problems += wrong
        return None
    in_flight, said = reported.in_flight(requests_per_s)
    reported = replace(reported, drafted=reported.drafted or study.axes.speculative is not None)
    if reported.held_back(in_flight):
        said = f"{in_flight:,.3g} of at most {reported.asked_in_flight:,.0f} requests were in flight: a closed loop"
        said += f", though {reported.request_rate_per_s:,.3g} a second were to come"
        reported = replace(reported, request_rate_per_s=math.nan)
    if knobs.weight_dtype is None:
        knobs = replace(knobs, weight_dtype=ran.weight_dtype)
    run = _run(reported, in_flight, at, study, candidate, knobs, problems, pooled=pooled is not None)
    if run is None:
        return None
    if "autotune_lengths" in facts:
        run = replace(run, same_lengths=facts["autotune_lengths"] == "fixed")
    if _FACTS[0] in facts:
        run = replace(run, prefix_hit_frac=study.workload.prefix_cache_hit_frac)
    return BenchResult(
        run=replace(run, concurrency=in_flight * share),
        plan=_named(candidate, pooled),
        pooled=pooled,
        output_tokens_per_s=outputs * share,
        total_tokens_per_s=total * share,
        failed=int(reported.failed) if reported.failed > 0 else 0,
        replicas=int(driven),
        reported=reported,
        notes=(*reported.notes, *([] if said is None else [said]), *ran.said),
    )


def _replicas(candidate: Candidate, pooled: PlanResult | None) -> tuple[int, int]:
    """Replicas of a plan, and the fewest that a benchmark may drive of them: pools are driven whole."""
    if pooled is None or pooled.pools is None:
        return candidate.layout.replicas, 1
    return pooled.pools.servers, pooled.pools.servers


def _throughput(reported: Reported, gpus: float) -> tuple[float, float]:
    """Output and all tokens per second of what was driven."""
    if reported.duration_s > 0 and reported.completed > 0:
        per_s = reported.completed / reported.duration_s
        return per_s * reported.osl, per_s * (reported.isl + reported.osl)
    each = gpus if reported.per_gpu else 1.0
    outputs = reported.output_tokens_per_s * each
    if not outputs > 0 and reported.requests_per_s > 0:
        outputs = reported.requests_per_s * reported.osl
    total = reported.total_tokens_per_s * each
    per_output = (reported.isl + reported.osl) / reported.osl if reported.osl > 0 else math.nan
    return outputs, total if total > 0 else outputs * per_output


def _run(  # noqa: PLR0913  # what was measured, of what, and what is wrong
    reported: Reported,
    in_flight: float,
    at: str,
    study: Study,
    candidate: Candidate,
    knobs: BenchKnobs,
    problems: list[Problem],
    *,
    pooled: bool,
) -> Run | None:
    ttft_s = reported.ttft_s.get("mean", math.nan)  # its median is another thing (`run_by_percentiles`)
    tpot_s = reported.tpot_s.get("mean", reported.tpot_s.get("p50", math.nan))
    lacking = [
        name
        for name, value in (
            ("prompt tokens", reported.isl),
            ("output tokens", reported.osl),
            ("a time per output token", tpot_s),
            ("requests in flight, or a duration and a TTFT", in_flight),
        )
        if not value > 0 or (name.endswith("tokens") and value < 1)
    ]
    if lacking:
        problems.append(Problem(path=at, message=f"must have {', '.join(lacking)} ({reported.tool})"))
        return None
    entry = PlanEntry(
        arch=stored_in(study.arch, knobs.weight_dtype),
        cluster=study.cluster if pooled else cluster_of(study, candidate.gpu, candidate.layout.gpus),
        engine=engine_traits(study, candidate.engine),
        layout=candidate.layout,
        kv_dtype=knobs.kv_dtype,
        engine_version=study.engine_version,
        cache=ENGINES[candidate.engine].cache_rule(study.arch, study.engine_version),
    )
    return Run(
        id=at,
        gpu=entry.cluster.gpu.name,
        engine=candidate.engine,
        engine_version=study.engine_version or "",
        model=study.arch.name,
        precision="",
        isl=reported.isl,
        osl=reported.osl,
        concurrency=in_flight,
        entry=entry,
        same_lengths=reported.same_lengths,
        mean_isl=reported.isl,
        mean_osl=reported.osl,
        ttft_s=ttft_s if ttft_s > 0 else math.nan,
        tpot_s=tpot_s,
        batched_tokens=knobs.batched_tokens,
        max_num_seqs=knobs.max_num_seqs,
        open_loop=reported.open_loop,
    )
