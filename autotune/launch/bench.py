"""The benchmark that checks a plan where it runs: the engines' own clients, with the study's workload.

Lengths (vllm/benchmarks/datasets/utils.py of 0.24 and 0.33): `--random-range-ratio r` draws uniformly from
`[length x (1 - r), length x (1 + r)]`, for prompt and output apart. SGLang (sglang/benchmark/datasets/common.py of
0.5.23, bench_serving.py of 0.5.9) draws from `[length x r, length]`, one r for both. The result file says what it
drove (`--metadata`, `--tag`), so that `autotune verify` and `autotune calibrate` know it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import ceil

from autotune.launch.engines.command import CommandLine
from autotune.launch.engines.options import OptionList, choose_version, option_list, versions
from autotune.launch.plan import Arg, BenchLoad, Service, Variable

CLIENTS = {"vllm": "vllm_bench", "sglang": "sglang_bench", "trtllm": "vllm_bench"}
"""Whose client measures each engine; TensorRT-LLM's server speaks OpenAI's API, as vLLM's client does."""
BACKENDS = {"vllm": "vllm", "sglang": "sglang", "trtllm": "openai"}
ROUNDS = 10
"""Requests per place in flight: with 10, start and end are a small part of the run (as InferenceMAX does)."""
RATE_S = 300
"""Length of a run with a given rate of arrivals."""
READY_S = 600
RESULTS = {"vllm_bench": "result.json", "sglang_bench": "result.jsonl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCommand:
    """One run of the client."""

    argv: tuple[Arg, ...]
    result: str
    """Name of the file that it writes."""
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """Where the client sends what: numbers, or variables of a script."""

    base_url: Arg
    result: Arg
    """File that it writes."""
    load: Arg
    """Requests in flight, or per second where the study gives a rate."""
    prompts: Arg
    warmups: Arg
    replicas: str | Variable
    """Replicas that the address reaches."""


def same_lengths(engine: str, isl: tuple[int, int], osl: tuple[int, int], prefix_hit_frac: float) -> bool:
    """Whether the client sends requests of one length: as the study has them, or as it draws them."""
    return (isl[0] == isl[1] and osl[0] == osl[1]) or (engine == "sglang" and prefix_hit_frac > 0.0)


def _lengths(service: Service) -> str:
    load = service.load
    return "fixed" if same_lengths(service.engine, load.isl, load.osl, load.prefix_hit_frac) else "uniform"


def client(service: Service) -> OptionList:
    """Options of the client for the service's engine: of the same version, or the nearest older one."""
    name = CLIENTS[service.engine]
    if service.engine == "trtllm":
        return option_list(name, versions(name)[0])
    return choose_version(name, service.version)[0]


def in_flight(load: BenchLoad, replicas: int, of: int) -> int:
    """The share of the load's concurrency that so many of all replicas take, rounded up."""
    return max(ceil(load.concurrency * replicas / of), 1)


def rate(load: BenchLoad, replicas: int, of: int) -> float | None:
    """The share of the load's arrivals per second, where it gives a rate."""
    return None if load.request_rate_per_s is None else load.request_rate_per_s * replicas / of


def requests(load: BenchLoad, replicas: int, of: int) -> int:
    """Requests of one run."""
    per_s = rate(load, replicas, of)
    return ROUNDS * in_flight(load, replicas, of) if per_s is None else max(ceil(per_s * RATE_S), 1)


def bench_command(service: Service, drive: Drive) -> BenchCommand:
    """The command of one run, every option checked against the client's own list.

    Raises:
        InputError: the client of this version has no option for something in it.
    """
    options = client(service)
    make = _sglang if options.engine == "sglang_bench" else _vllm
    argv, said = make(service, options, drive)
    if service.engine == "trtllm":
        said = (*said, f"measured with vLLM's client ({options.command}, {options.version}) over OpenAI's API")
    return BenchCommand(argv=argv, result=RESULTS[options.engine], assumptions=said)


def _vllm(service: Service, options: OptionList, drive: Drive) -> tuple[tuple[Arg, ...], tuple[str, ...]]:
    load, said = service.load, []
    line = CommandLine(options).value("backend", BACKENDS[service.engine]).value("base_url", drive.base_url)
    line.value("model", service.model).value("dataset_name", "random")
    prefix, cut = _prefix(load)
    said += cut
    prompt = (load.isl[0] - prefix, load.isl[1] - prefix)
    line.value("random_input_len", _middle(prompt)).value("random_output_len", _middle(load.osl))
    ratios = (_half_width(prompt), _half_width(load.osl))
    both = f"{ratios[0]:g}" if ratios[0] == ratios[1] else json.dumps({"input": ratios[0], "output": ratios[1]})
    line.value("random_range_ratio", both)
    if prefix:
        line.value("random_prefix_len", prefix)
    line.flag("ignore_eos").value("num_prompts", drive.prompts).value("num_warmups", drive.warmups)
    line.value("request_rate" if load.request_rate_per_s is not None else "max_concurrency", drive.load)
    line.value("percentile_metrics", "ttft,tpot,itl,e2el").value("ready_check_timeout_sec", READY_S)
    line.value("seed", 1)
    facts: list[Arg] = [f"autotune_plan={service.plan}", f"autotune_lengths={_lengths(service)}"]
    line.values("metadata", [*facts, _fact("autotune_replicas=", drive.replicas)])
    line.flag("save_result").value("result_filename", drive.result)
    return line.done(), tuple(said)


def _fact(before: str, value: str | Variable) -> Arg:
    return replace(value, before=before) if isinstance(value, Variable) else before + value


def _sglang(service: Service, options: OptionList, drive: Drive) -> tuple[tuple[Arg, ...], tuple[str, ...]]:
    load, said = service.load, []
    line = CommandLine(options).value("backend", BACKENDS[service.engine]).value("base_url", drive.base_url)
    line.value("model", service.model)
    prefix, cut = _prefix(load)
    said += cut
    if prefix:
        line.value("dataset_name", "generated-shared-prefix").value("gsp_num_groups", 1)
        line.value("gsp_prompts_per_group", drive.prompts).value("gsp_system_prompt_len", prefix)
        line.value("gsp_question_len", _middle(load.isl) - prefix).value("gsp_output_len", _middle(load.osl))
        if load.isl[0] < load.isl[1] or load.osl[0] < load.osl[1]:
            said.append("benchmark: prompts with a shared prefix all have mean lengths, SGLang's client draws none")
    else:
        line.value("dataset_name", "random-ids").flag("tokenize_prompt")
        ratio = load.isl[0] / load.isl[1]
        outputs = load.osl[1]
        if abs(load.osl[0] / load.osl[1] - ratio) > 0.005:
            outputs = round(2.0 * _middle(load.osl) / (1.0 + ratio))
            said.append(
                f"benchmark: SGLang's client has one range for prompts and outputs: outputs of "
                f"{round(outputs * ratio):,} to {outputs:,} tokens, with the study's mean of {_middle(load.osl):,}"
            )
        line.value("random_input_len", load.isl[1]).value("random_output_len", outputs)
        line.value("random_range_ratio", f"{ratio:.6g}")
    line.value("num_prompts", drive.prompts).value("warmup_requests", drive.warmups)
    line.value("request_rate" if load.request_rate_per_s is not None else "max_concurrency", drive.load)
    if "ready_check_timeout_sec" in options.options:
        line.value("ready_check_timeout_sec", READY_S)
    facts = f"autotune_plan={service.plan};autotune_lengths={_lengths(service)};autotune_replicas="
    line.value("seed", 1).value("tag", _fact(facts, drive.replicas)).value("output_file", drive.result)
    return line.done(), tuple(said)


def _prefix(load: BenchLoad) -> tuple[int, list[str]]:
    """Tokens that all prompts share, so that the study's share of them is found in the prefix cache."""
    wanted = round(load.prefix_hit_frac * _middle(load.isl))
    length = min(wanted, load.isl[0] - 1)
    if length < wanted:
        share = length / _middle(load.isl)
        return length, [
            (
                f"benchmark: {share:.0%} of prompt tokens shared instead of {load.prefix_hit_frac:.0%}, as no prompt "
                "may "
                "be shorter than what all share"
            )
        ]
    return length, []


def _middle(span: tuple[int, int]) -> int:
    return max(round((span[0] + span[1]) / 2.0), 1)


def _half_width(span: tuple[int, int]) -> float:
    return round((span[1] - span[0]) / (span[1] + span[0]), 6)
