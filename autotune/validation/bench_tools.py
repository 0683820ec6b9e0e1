"""Results of benchmarks as the tools write them, each read into what it reports.

vLLM's `bench serve`, SGLang's `bench_serving`, AIPerf and GenAI-Perf, GuideLLM, inference-perf, InferenceX's
aggregates, LLMPerf's summaries and llm-d-benchmark's reports. What is no serving run is an error that says what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from autotune.validation.deployment import engine_named
from autotune.validation.record_tables import (
    find,
    iso_duration,
    model_in,
    rate_of,
    text_of,
    text_within,
    with_latency,
    within,
)
from autotune.validation.reported import (
    STATISTICS,
    Record,
    Reported,
    is_request,
    mean_of,
    number,
    of_details,
    run_of_requests,
    says_drafted,
    statistics,
)
from costmodel.errors import InputError

TOOLS = (
    "vllm bench serve, SGLang's bench_serving, AIPerf, GenAI-Perf, GuideLLM, inference-perf, InferenceX, "
    "LLMPerf or llm-d-benchmark"
)
VLLMS, SGLANGS = "vllm bench serve", "SGLang's bench_serving"


def reported_runs(values: Sequence[Any], at: str) -> Iterator[tuple[str, Record, Reported]]:
    """Every run in a file's objects: where it stands, its object, what it reports.

    Raises:
        InputError: an object is no result of a known tool, or is no serving run.
    """
    requests = [value for value in values if isinstance(value, Mapping) and is_request(value)]
    if requests and len(requests) == len(values):
        yield at, {}, run_of_requests(requests)
        return
    for i, value in enumerate(values, start=1):
        where = f"{at}:{i}"
        if not isinstance(value, Mapping):
            raise InputError.single(where, "must be an object")
        several = value.get("benchmarks")
        if isinstance(several, list):
            for j, one in enumerate(several, start=1):
                if isinstance(one, Mapping):
                    yield f"{where}:{j}", one, _guidellm(one, value)
            continue
        yield where, value, _reported(value, where)


def _reported(record: Record, at: str) -> Reported:
    _refuse_what_serves_nobody(record, at)
    for fits, read in _TOOLS:
        if fits(record):
            return read(record)
    raise InputError.single(at, f"must be a result of {TOOLS}: its fields are of none of them")


def _refuse_what_serves_nobody(record: Record, at: str) -> None:
    """Raises `InputError` where a result is of one batch, or of requests without latencies."""
    serves = "no serving run: measure with `vllm bench serve` or `sglang.bench_serving`"
    if "mean_ttft_ms" in record:
        return
    if "batch_size" in record and {"overall_throughput", "last_ttft", "prefill_latency"} & record.keys():
        count = record["batch_size"]
        raise InputError.single(at, f"is of one batch of {count} requests that start and end together, {serves}")
    if "avg_latency" in record and "latencies" in record:
        raise InputError.single(at, f"is the latency of one batch (`vllm bench latency`), {serves}")
    if isinstance(record.get("experiments"), list):
        raise InputError.single(
            at, "is GenAI-Perf's raw export without token counts: give profile_export_genai_perf.json"
        )
    if "ttft_s" in record and "end_to_end_latency_s" in record:
        raise InputError.single(at, "is one of LLMPerf's responses, which have no times: give its file _summary.json")
    if {"request_throughput", "request_latency"} <= record.keys() and "time_to_first_token" not in record:
        raise InputError.single(at, "was measured without a time to first token: measure with --streaming")
    offline = None
    if isinstance(record.get("performance"), Mapping) and "request_info" in record:
        offline = "trtllm-bench"
    elif {"elapsed_time", "num_requests", "tokens_per_second"} <= record.keys():
        offline = "vllm bench throughput"
    elif {"total_latency", "successful_requests"} <= record.keys():
        offline = "sglang.bench_offline_throughput"
    if offline is not None:
        raise InputError.single(at, f"is an offline throughput result (`{offline}`) without latencies, {serves}")


def _classic(record: Record) -> Reported:
    """vLLM's and SGLang's clients, which have one family of names."""
    completed = number(record, "completed")
    rate = record.get("request_rate")
    finite = isinstance(rate, int | float) and not isinstance(rate, bool) and math.isfinite(rate) and 0 < rate < 1e9
    burstiness = number(record, "burstiness")
    prompts, outputs = record.get("input_lens"), record.get("output_lens")
    each = of_details(record)
    tool = SGLANGS if "mean_e2e_latency_ms" in record else VLLMS
    server = record.get("server_info")  # of SGLang's servers
    return Reported(
        tool=tool,
        completed=completed,
        failed=number(record, "failed"),
        isl=number(record, "total_input_tokens") / completed if completed > 0 else math.nan,
        osl=number(record, "total_output_tokens") / completed if completed > 0 else math.nan,
        ttft_s=each.get("ttft", {}) | _spelt(record, "ttft_ms"),
        tpot_s=each.get("tpot", {}) | _spelt(record, "tpot_ms"),
        e2e_s=each.get("e2e", {}) | (_spelt(record, "e2el_ms") or _spelt(record, "e2e_latency_ms")),
        duration_s=number(record, "duration"),
        asked_in_flight=number(record, "max_concurrency"),
        seen_in_flight=number(record, "concurrency"),
        drafted=says_drafted(record),
        request_rate_per_s=float(rate) if finite else math.nan,  # type: ignore[arg-type]  # checked
        arrival_cv=1.0 / math.sqrt(burstiness) if burstiness > 0 else 1.0,
        same_lengths=_all_equal(prompts) and _all_equal(outputs),
        model=text_of(record.get("model_id")) or text_within(server, "model_path"),
        engine=_driven(tool, record.get("backend")),
    )


def _driven(tool: str, backend: Any) -> str | None:
    """The engine that a client was told to measure; None: any that has OpenAI's interface, as `vllm` of vLLM's client.

    That is what its client starts with, and it measures other servers so too; SGLang's starts with `sglang`.
    """
    known = backend if isinstance(backend, str) else ""
    generic = ("openai", "vllm") if tool == VLLMS else ("openai",)
    return None if known.startswith(generic) else engine_named(known)


def _spelt(record: Record, name: str, unit_s: float = 1e-3) -> dict[str, float]:
    """Statistics of a latency such as `mean_ttft_ms`, `median_ttft_ms`, `p90_ttft_ms`."""
    spellings = {s: f"{s}_{name}" for s in STATISTICS} | {"p50": f"median_{name}"}
    found = {statistic: number(record, spelling, f"{statistic}_{name}") for statistic, spelling in spellings.items()}
    return {statistic: unit_s * value for statistic, value in found.items() if value > 0}


def _all_equal(lengths: Any) -> bool:
    """Whether detailed results list one length for every request; without the list, lengths are taken to vary."""
    return isinstance(lengths, list) and len(lengths) > 0 and all(length == lengths[0] for length in lengths)


def _inferencex(record: Record) -> Reported:
    outputs, osl = number(record, "output_tput_per_gpu"), number(record, "osl")
    conc, total = number(record, "conc"), number(record, "tput_per_gpu")
    prefill, decode = number(record, "num_prefill_gpu"), number(record, "num_decode_gpu")
    gpus = prefill + decode if prefill > 0 else number(record, "tp")
    if gpus > 0:  # output tokens are per GPU that decodes
        outputs, total = outputs * (decode if decode > 0 else gpus), total * gpus
    framework = text_of(record.get("framework"))
    drafts = str(record.get("spec_decoding", record.get("mtp", "none"))).lower()
    return Reported(
        tool="InferenceX",
        completed=10.0 * conc,  # what its client sends; the aggregate does not say
        isl=number(record, "isl"),
        osl=osl,
        ttft_s=_spelt(record, "ttft", unit_s=1.0),
        tpot_s=_spelt(record, "tpot", unit_s=1.0),
        e2e_s=_spelt(record, "e2el", unit_s=1.0),
        asked_in_flight=conc,
        output_tokens_per_s=outputs,
        total_tokens_per_s=total,
        per_gpu=not gpus > 0,
        gpus=gpus,
        model=text_of(record.get("model")),
        gpu=text_of(record.get("hw")),
        engine=None if framework is None else engine_named(framework) or framework,
        precision=text_of(record.get("precision")),
        drafted=drafts not in ("none", "false", "off", ""),
        notes=("InferenceX's aggregate has no count of requests: 10 for each in flight, as its client sends",),
    )


def _aiperf(record: Record) -> Reported:
    inner = record.get("records")
    table = {**inner, **record} if isinstance(inner, Mapping) else record
    config = record.get("input_config")
    rate = mean_of(table.get("request_throughput"))
    completed = mean_of(table.get("request_count"))
    measured_s = mean_of(table.get("benchmark_duration"))
    lengths = [table.get(f"{side}_sequence_length") for side in ("input", "output")]
    return Reported(
        tool="AIPerf",
        completed=completed,
        failed=mean_of(table.get("error_request_count")),
        isl=mean_of(lengths[0]),
        osl=mean_of(lengths[1]),
        ttft_s=statistics(table.get("time_to_first_token"), unit_s=1e-3),
        tpot_s=statistics(table.get("inter_token_latency"), unit_s=1e-3),
        e2e_s=statistics(table.get("request_latency"), unit_s=1e-3),
        duration_s=measured_s if measured_s > 0 else completed / rate if rate > 0 else math.nan,
        asked_in_flight=within(config, "concurrency"),
        seen_in_flight=mean_of(table.get("effective_concurrency")),
        request_rate_per_s=within(config, "request_rate"),
        arrival_cv=_aiperf_cv(config),
        requests_per_s=rate,
        output_tokens_per_s=mean_of(table.get("output_token_throughput")),
        total_tokens_per_s=mean_of(table.get("total_token_throughput")),
        same_lengths=[number(table, "std") for table in lengths] == [0.0, 0.0],
        model=model_in(config),
    )


def _aiperf_cv(config: Any) -> float:
    """Of its arrivals at a rate: equal gaps, or those of a gamma distribution, Poisson's where its smoothness is 1."""
    pattern = text_within(config, "arrival_pattern", "request_rate_mode")
    if pattern == "constant":
        return 0.0
    smoothness = within(config, "arrival_smoothness") if pattern == "gamma" else math.nan
    return 1.0 / math.sqrt(smoothness) if smoothness > 0 else 1.0


def _guidellm(record: Record, report: Record) -> Reported:
    """One benchmark of a report, whose settings name the model where the benchmark's do not."""
    metrics = record.get("metrics")
    table = metrics if isinstance(metrics, Mapping) else {}
    strategy = find(record, "strategy") or {}
    kind = str(strategy.get("kind", strategy.get("type_", strategy.get("type", ""))))
    clock = record.get("scheduler_metrics")  # since 0.4
    totals = table.get("request_totals") or record.get("request_totals") or record.get("run_stats") or clock
    counts = totals.get("requests_made", totals) if isinstance(totals, Mapping) else {}
    settings = (find(record, "backend"), report.get("args"), find(report.get("config"), "backend"))
    named = (text_of(table.get("model")) for table in settings if isinstance(table, Mapping))
    rate = mean_of(table.get("requests_per_second"))
    completed = number(counts, "successful", "completed")
    duration = number(record, "duration", "duration_seconds")
    for timed in (record, clock):
        if math.isnan(duration):
            duration = number(timed, "end_time") - number(timed, "start_time")
    return Reported(
        tool="GuideLLM",
        completed=completed if completed > 0 else rate * duration,
        failed=number(counts, "errored"),
        isl=mean_of(table.get("prompt_token_count")),
        osl=mean_of(table.get("output_token_count")),
        ttft_s=statistics(table.get("time_to_first_token_ms"), unit_s=1e-3),
        # its time per output token counts the first one as well
        tpot_s=statistics(table.get("inter_token_latency_ms"), unit_s=1e-3),
        e2e_s=statistics(table.get("request_latency")),
        duration_s=duration,
        asked_in_flight=number(strategy, "streams", "max_concurrency"),
        seen_in_flight=mean_of(table.get("request_concurrency")),
        request_rate_per_s=number(strategy, "rate") if kind in ("constant", "poisson", "async") else math.nan,
        arrival_cv=0.0 if kind == "constant" else 1.0,
        requests_per_s=rate,
        output_tokens_per_s=mean_of(table.get("output_tokens_per_second")),
        total_tokens_per_s=mean_of(table.get("tokens_per_second")),
        model=next(filter(None, named), text_within(record.get("worker"), "backend_model")),  # worker: before 0.4
    )


def _inference_perf(record: Record) -> Reported:
    served, load = record["successes"], record.get("load_summary") or {}
    latency = served.get("latency") or {}
    throughput = served.get("throughput") or {}
    failures = record.get("failures")
    rate = number(throughput, "requests_per_sec")
    completed = number(served, "count")
    asked = number(load, "concurrency")
    return Reported(
        tool="inference-perf",
        completed=completed,
        failed=number(failures, "count"),
        isl=mean_of(served.get("prompt_len")),
        osl=mean_of(served.get("output_len")),
        ttft_s=statistics(latency.get("time_to_first_token")),
        tpot_s=statistics(latency.get("time_per_output_token")) or statistics(latency.get("inter_token_latency")),
        e2e_s=statistics(latency.get("request_latency")),
        duration_s=completed / rate if rate > 0 else number(load, "send_duration"),
        asked_in_flight=asked,
        request_rate_per_s=math.nan if asked > 0 else number(load, "requested_rate", "achieved_rate"),
        requests_per_s=rate,
        output_tokens_per_s=number(throughput, "output_tokens_per_sec"),
        total_tokens_per_s=number(throughput, "total_tokens_per_sec"),
    )


def _llmperf(record: Record) -> Reported:
    def table(name: str) -> dict[str, float]:
        spelt = {s: f"results_{name}_" + ("mean" if s == "mean" else f"quantiles_{s}") for s in STATISTICS}
        return {s: value for s, field in spelt.items() if (value := number(record, field)) > 0}

    completed = number(record, "results_num_completed_requests")
    osl = number(record, "results_number_output_tokens_mean")
    ttft_s, e2e_s = table("ttft_s"), table("end_to_end_latency_s")
    # its latency between tokens counts the first token as well, over all tokens
    per_token = (e2e_s.get("mean", math.nan) - ttft_s.get("mean", math.nan)) / max(osl - 1.0, 1.0)
    per_minute = number(record, "results_num_completed_requests_per_min")
    return Reported(
        tool="LLMPerf",
        completed=completed,
        failed=number(record, "results_number_errors"),
        isl=number(record, "results_number_input_tokens_mean"),
        osl=osl,
        ttft_s=ttft_s,
        tpot_s={"mean": per_token} if per_token > 0 else {},
        e2e_s=e2e_s,
        duration_s=60.0 * completed / per_minute if per_minute > 0 else math.nan,
        asked_in_flight=number(record, "num_concurrent_requests"),
        output_tokens_per_s=number(record, "results_mean_output_throughput_token_per_s"),
        model=text_of(record.get("model")),
        notes=("LLMPerf counts tokens with a tokenizer of its own (LLaMA's), whatever the model's is",),
    )


def _llm_d(record: Record) -> Reported:
    found = with_latency(record) or {}
    requests, latency = found.get("requests") or {}, found.get("latency") or {}
    throughput = found.get("throughput") or {}
    times = find(record, "time") or {}
    scenario = record.get("scenario")
    rate = rate_of(throughput, "requests_per_sec", "request_rate", "requests_rate")
    lost = [number(requests, name) for name in ("failures", "incomplete")]
    failures = sum(count for count in lost if count > 0)
    duration = number(times, "duration")
    if math.isnan(duration):
        duration = iso_duration(times.get("duration"))
    return Reported(
        tool="llm-d-benchmark",
        completed=number(requests, "total") - failures,
        failed=failures,
        isl=mean_of(requests.get("input_length")),
        osl=mean_of(requests.get("output_length")),
        ttft_s=statistics(latency.get("time_to_first_token")),
        tpot_s=statistics(latency.get("time_per_output_token")) or statistics(latency.get("inter_token_latency")),
        e2e_s=statistics(latency.get("request_latency")),
        duration_s=duration,
        asked_in_flight=within(scenario, "concurrency", "max_concurrency"),
        request_rate_per_s=within(scenario, "rate_qps", "request_rate", "qps"),
        requests_per_s=rate,
        output_tokens_per_s=rate_of(throughput, "output_tokens_per_sec", "output_token_rate"),
        total_tokens_per_s=rate_of(throughput, "total_tokens_per_sec", "total_token_rate"),
        model=model_in(scenario),
    )


_TOOLS: tuple[tuple[Callable[[Record], bool], Callable[[Record], Reported]], ...] = (
    (lambda r: "mean_tpot_ms" in r or "mean_ttft_ms" in r or "total_output_tokens" in r, _classic),
    (lambda r: {"conc", "isl", "osl"} <= r.keys() and ("mean_tpot" in r or "median_tpot" in r), _inferencex),
    (lambda r: isinstance(r.get("successes"), Mapping), _inference_perf),
    (lambda r: "results_ttft_s_mean" in r, _llmperf),
    (
        lambda r: isinstance(r.get("metrics"), Mapping) and "time_to_first_token_ms" in r["metrics"],
        lambda r: _guidellm(r, r),
    ),
    (lambda r: with_latency(r) is not None, _llm_d),
    (lambda r: find(r, "time_to_first_token") is not None, _aiperf),
)
"""What a tool's result is known by -> what reads it."""
