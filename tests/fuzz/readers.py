"""Every reader of what users hand in, as a function of bytes, with a few good inputs to begin from.

A reader either understands or raises `InputError`; anything else that comes out of one is a bug.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from autotune.engines import traits_by_name
from autotune.evaluation.report_claims import read_claims
from autotune.launch.reading.import_plan import import_plan
from autotune.retuning.ledger import open_ledger, read_ledger
from autotune.retuning.state import read_current
from autotune.space import parse_plan
from autotune.study import Study, load_study
from autotune.traffic.options import ReadOptions
from autotune.traffic.read import read_traffic
from autotune.validation.bench import read_results
from costmodel.arch import read_config_file
from costmodel.calibration.profile import SCHEMA_VERSION, VALUES, read_profile
from costmodel.errors import InputError
from costmodel.files import read_file
from costmodel.measured.runs_csv import read_runs
from tests.studies import FOLDER

CONFIGS = FOLDER.parent / "costmodel" / "arch" / "catalog_data"


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads one kind of file."""

    read: Callable[[Path], object]
    """Given a path in a folder of its own."""
    seeds: tuple[bytes, ...]
    suffix: str = ""
    """Name of the file, or what it ends in."""

    def run(self, data: bytes, folder: Path) -> str | None:
        """Read `data`; what was wrong with it, or None. Whatever is raised besides is for the caller to see."""
        path = folder / (f"input{self.suffix}" if self.suffix.startswith(".") or not self.suffix else self.suffix)
        path.write_bytes(data)
        try:
            self.read(path)
        except InputError as error:
            return str(error)
        return None


@lru_cache(maxsize=1)
def some_study() -> Study:
    """A study to read benchmark results with."""
    return load_study(FOLDER / "llama-70b-16xh100.toml")


def _ledger(path: Path) -> None:
    ledger = read_ledger(path.parent)
    for line in ledger.lines:
        with contextlib.suppress(InputError):
            _ = line.entry
    open_ledger(path.parent)


def _command(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    import_plan(text)


def _settings(path: Path) -> None:
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    load_study(FOLDER / "llama-70b-16xh100.toml", [line for line in lines if line])


def _plan(path: Path) -> None:
    parse_plan(path.read_bytes().decode("utf-8", "surrogateescape"))


MOST_BYTES = 10_000_000


def _beside(name: str) -> Callable[[Path], object]:
    """Reads a folder of a model whose file of that name holds the bytes."""

    def read(path: Path) -> None:
        with TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_bytes((CONFIGS / "Qwen--Qwen3-30B-A3B.json").read_bytes())
            (Path(folder) / name).write_bytes(read_file(path, MOST_BYTES))
            read_config_file(Path(folder))

    return read


CSV_TRAFFIC = b"""TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.5,2399,6
"""
JSON_TRAFFIC = b"""{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 3000, "input_length": 7, "output_length": 5}
"""
METRICS = b"""# TYPE vllm:request_prompt_tokens histogram
vllm:request_prompt_tokens_bucket{le="100.0",model_name="m"} 4
vllm:request_prompt_tokens_bucket{le="+Inf",model_name="m"} 9
vllm:request_prompt_tokens_sum{model_name="m"} 1200
vllm:request_prompt_tokens_count{model_name="m"} 9
"""
AGENTS = b"""{"start_time": "2026-01-01T00:00:00Z", "requests": [{"t": 0.5, "in": 900, "out": 30}, {"in": 9, "out": 3}]}
{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "1770000000000000000", "attributes": [
"""
PROXY = b"""{"startTime": 1770000000.5, "status": "success", "prompt_tokens": 100, "completion_tokens": 5, "model": "m"}
{"startTime": 1770000001.5, "status": "failure", "usage": {"input_tokens": 4, "cache_read_input_tokens": 7}}
"""
ACCESS_LOG = b"""[2026-01-01T00:00:00.5Z] "POST /v1/completions HTTP/1.1" 200 tokens=150/75 timings=5ms(1+2+3)
[2026-01-01T00:00:01.5Z] "POST /v1/completions HTTP/1.1" 504 model_name=m tokens=150/0
"""
OTLP = b"""{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "gen_ai.client.token.usage", "histogram": {
"aggregationTemporality": 2, "dataPoints": [{"attributes": [{"key": "gen_ai.token.type", "value": {"stringValue":
"input"}}], "startTimeUnixNano": "1", "timeUnixNano": "9000000000", "count": "9", "sum": 99.5, "explicitBounds": [5],
"bucketCounts": ["4", "5"]}]}}]}]}]}
"""
STATUS_CSV = b"""time;model;prompt tokens;completion tokens;cached tokens;status;error
2026-01-01T00:00:00;m;100;5;50;200;
2026-01-01T00:00:09;m;100;0;0;500;timeout
"""
ANSWER = json.dumps(
    {"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"__name__": f"vllm:request_{n}_tokens_{part}", "le": le}, "values": [[6, "1"], [9, "9"], [12, 3]]}
        for n in ("prompt", "generation") for part, le in (("bucket", "100"), ("bucket", "+Inf"), ("sum", ""))
    ]}}
).encode()  # fmt: skip
RUNS = b"gpu,engine,model,isl,osl,concurrency,attn_tp,ttft_ms,tpot_ms\nh100,vllm,llama-3.1-70b,1000,1000,64,8,120,20\n"
BENCH = json.dumps(
    {"model_id": "x", "max_concurrency": 8, "completed": 9, "total_input_tokens": 900, "total_output_tokens": 90,
     "mean_ttft_ms": 100.0, "mean_tpot_ms": 20.0, "input_lens": [100] * 9, "output_lens": [10] * 9}
).encode()  # fmt: skip
AIPERF = json.dumps(
    {"request_throughput": {"unit": "requests/sec", "avg": 2.5}, "request_count": {"avg": 100},
     "request_latency": {"unit": "ms", "avg": 9e3}, "time_to_first_token": {"unit": "ms", "avg": 900, "p99": 1350},
     "inter_token_latency": {"unit": "ms", "avg": 42}, "output_sequence_length": {"avg": 500},
     "input_sequence_length": {"avg": 2000}, "input_config": {"loadgen": {"concurrency": 64}}}
).encode()  # fmt: skip
GUIDELLM = json.dumps(
    {"benchmarks": [{"duration": 9.0, "config": {"strategy": {"type_": "constant", "rate": 2}}, "metrics": {
        "request_totals": {"successful": 9}, "prompt_token_count": {"successful": {"mean": 9}},
        "output_token_count": {"successful": {"mean": 9}}, "inter_token_latency_ms": {"successful": {"mean": 9}},
        "time_to_first_token_ms": {"successful": {"mean": 9, "percentiles": {"p99": 99}}}}}]}
).encode()  # fmt: skip
LLM_D = json.dumps(
    {"metrics": {
        "time": {"duration": 9}, "requests": {"total": 9, "input_length": {"mean": 9}, "output_length": {"mean": 9}},
        "latency": {"time_to_first_token": {"units": "ms", "mean": 9}, "time_per_output_token": {"mean": 9}}}}
).encode()  # fmt: skip
PROFILE = (
    f'schema_version = {SCHEMA_VERSION}\n[cells."h100/vllm/llama"]\nruns = 3\n'
    f"tpot = {[0.0] * VALUES}\nttft = {[0.0] * VALUES}\n"
).encode()
LEDGER = b'{"schema":1,"kind":"decision","id":"a","decision":"keep","rule":"no_drift","at":"2026-01-01T00:00:00Z"}\n'
COMPOSE = b"""services:
  vllm:
    image: vllm/vllm-openai:latest
    command: ["--model", "meta-llama/Llama-3.1-70B", "--tensor-parallel-size", "8"]
"""
SCRIPT = b"""#!/bin/bash
export X=1
vllm serve deepseek-ai/DeepSeek-V3 --tensor-parallel-size 8 \\
  --enable-expert-parallel
"""

QUANTISATION = (
    b'{"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}',
    b"""{"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {
    "model.layers.0.mlp.gate_proj": {"quant_algo": "NVFP4", "group_size": 16},
    "model.layers.1.self_attn.q_proj": {"quant_algo": "FP8"}}}}""",
    b'{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W4A16_AWQ", "group_size": 128}}',
)


def _sources(suffix: str) -> tuple[bytes, ...]:
    """What people start servers with."""
    folder = FOLDER.parent / "tests" / "launch" / "sources"
    return tuple(path.read_bytes() for path in sorted(folder.glob(f"*{suffix}")))


TRAFFIC = (CSV_TRAFFIC, STATUS_CSV, JSON_TRAFFIC, AGENTS, PROXY, ACCESS_LOG, METRICS, ANSWER, OTLP)
PYTHON = (
    b"from vllm import LLM\nN = 2 * 4\nLLM('x/y', tensor_parallel_size=N, max_num_seqs=int(os.getenv('S', 8)))",
    b"cmd = ['vllm', 'serve', 'x/y']\ncmd += ['-tp', str(4)]\nfor i in range(4):\n    Popen(' '.join(cmd), shell=True)",
    b"LLMConfig(model_loading_config=dict(model_id='x'), engine_kwargs={'tensor_parallel_size': 4})",
)
LLMPERF = (
    b'{"num_concurrent_requests": 8, "results_ttft_s_mean": 0.2, "results_end_to_end_latency_s_mean": 9.0, '
    b'"results_number_input_tokens_mean": 500, "results_number_output_tokens_mean": 100, '
    b'"results_num_completed_requests": 64, "results_num_completed_requests_per_min": 50}'
)
RESULTS = (BENCH, AIPERF, GUIDELLM, LLM_D, LLMPERF)
READERS: Mapping[str, Reader] = {
    "study": Reader(load_study, tuple(p.read_bytes() for p in sorted(FOLDER.glob("*-*.toml"))[:3]), ".toml"),
    "settings": Reader(
        _settings, (b"cluster.gpus=32\nmodel=qwen3-235b", b'search.kv_dtype=["fp8"]\nworkload.isl={min=1,max=9}')
    ),
    "plan": Reader(_plan, (b"EP16/PP2/TP4/DP4", b"R2 x PP4 x TP8", b"tp8")),
    "config": Reader(read_config_file, tuple(p.read_bytes() for p in sorted(CONFIGS.glob("*.json"))), ".json"),
    "params": Reader(
        read_config_file, ((CONFIGS / "mistralai--Mistral-Large-3-675B-Instruct-2512.json").read_bytes(),), ".json"
    ),
    "quantisation": Reader(_beside("hf_quant_config.json"), QUANTISATION),
    "index": Reader(
        _beside("model.safetensors.index.json"), (b'{"metadata": {"total_size": 61064245248}, "weight_map": {}}',)
    ),
    "traffic": Reader(lambda path: read_traffic(str(path)), TRAFFIC),
    "traffic_document": Reader(
        lambda path: read_traffic(str(path), options=ReadOptions(time_unit="ms", match={"model": "m"})),
        (b'{\n"data": [{"ts": "2026-01-01T00:00:00Z", "prompt_tokens": 5, "output_tokens": 5, "model": "m"}]}', PROXY),
    ),
    "runs": Reader(lambda path: read_runs(path, traits_by_name()), (RUNS,), ".csv"),
    "bench": Reader(lambda path: read_results(path, some_study(), "TP8/PP2"), RESULTS, ".json"),
    "bench_report": Reader(lambda path: read_results(path, some_study(), "TP8/PP2"), (LLM_D,), ".yaml"),
    "command": Reader(
        _command,
        (
            b"vllm serve deepseek-ai/DeepSeek-V3 --tensor-parallel-size 8 --pipeline-parallel-size=2 -dp 4",
            b"python3 -m sglang.launch_server --model-path x --tp 8 --dp-size 8 --enable-dp-attention",
            b"trtllm-serve x --tp_size 8 --ep_size 4 --max_batch_size 64",
        ),
    ),
    "script": Reader(lambda path: import_plan(str(path)), (SCRIPT, *_sources(".sh")), ".sh"),
    "python": Reader(lambda path: import_plan(str(path)), PYTHON, ".py"),
    "manifest": Reader(lambda path: import_plan(str(path)), (COMPOSE, *_sources(".yaml")), ".yaml"),
    "claims": Reader(read_claims, ((FOLDER / "reference-128.claims.toml").read_bytes(),), ".toml"),
    "profile": Reader(read_profile, (PROFILE,), ".toml"),
    "ledger": Reader(_ledger, (LEDGER,), "ledger.jsonl"),
    "current": Reader(lambda path: read_current(path.parent), (b'{"schema": 1, "plan": "TP8"}',), "current.json"),
}  # fmt: skip
