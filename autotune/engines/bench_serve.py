"""`vllm bench serve`, the client of vLLM's makers, which measures servers of other engines as well."""

from __future__ import annotations

import json

from autotune.engines.benchmark import READY_S, BenchCommand, Drive, facts, middle, shared_prefix
from autotune.engines.command_line import CommandLine
from autotune.engines.engine import Engine
from autotune.engines.options import OptionList
from autotune.engines.service import Service


def bench_serve(engine: Engine, service: Service, options: OptionList, drive: Drive, *, backend: str) -> BenchCommand:
    """`vllm bench serve` against a server of any engine that it has a backend for.

    Lengths (vllm/benchmarks/datasets/utils.py of 0.24 and 0.33): `--random-range-ratio r` draws uniformly from
    `[length x (1 - r), length x (1 + r)]`, for prompt and output apart.
    """
    load = service.load
    line = CommandLine(options).value("backend", backend).value("base_url", drive.base_url)
    line.value("model", service.model)
    engine.write_code(line, service)
    line.value("dataset_name", "random")
    prefix, cut = shared_prefix(load)
    prompt = (load.isl[0] - prefix, load.isl[1] - prefix)
    line.value("random_input_len", middle(prompt)).value("random_output_len", middle(load.osl))
    ratios = [round((high - low) / (high + low), 6) for low, high in (prompt, load.osl)]
    both = f"{ratios[0]:g}" if ratios[0] == ratios[1] else json.dumps({"input": ratios[0], "output": ratios[1]})
    line.value("random_range_ratio", both)
    if prefix:
        line.value("random_prefix_len", prefix)
    line.flag("ignore_eos").value("num_prompts", drive.prompts).value("num_warmups", drive.warmups)
    line.value("request_rate" if load.request_rate_per_s is not None else "max_concurrency", drive.load)
    line.value("percentile_metrics", "ttft,tpot,itl,e2el").value("ready_check_timeout_sec", READY_S)
    line.value("seed", 1)
    same = engine.same_lengths(load.isl, load.osl, load.prefix_hit_frac)
    line.values("metadata", facts(service, drive, same_lengths=same))
    line.flag("save_result").value("result_filename", drive.result)
    return BenchCommand(argv=line.done(), assumptions=cut)
