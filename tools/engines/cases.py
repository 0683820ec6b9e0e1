"""Commands for the engines to read: those of exported plans, and wrong ones that must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autotune.engines.command_line import Arg, FilePath, HostSlots, NodeHost, NodeRank, Variable
from autotune.launch.export import make_export
from autotune.launch.plan import LaunchPlan
from autotune.launch.service import LaunchOptions
from autotune.space import format_plan
from autotune.study import study_from_document
from autotune.tuning import score_plan
from autotune.tuning.study_space import study_space
from costmodel.errors import InputError

MODELS = {
    "deepseek-v3": "deepseek-ai--DeepSeek-V3",
    "Qwen/Qwen3-235B-A22B-FP8": "Qwen--Qwen3-235B-A22B-FP8",
    "gpt-oss-120b": "openai--gpt-oss-120b",
    "llama-3.1-70b": "meta-llama--Meta-Llama-3.1-70B",
}
"""Models of the studies -> their files in the catalog."""
PLANS = 30
"""Of each study and engine, spread over all that are valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One command."""

    id: str
    config: str
    """The model, as a file name of the catalog without its ending."""
    argv: tuple[str, ...]
    """Options, after the words that name the program."""
    env: dict[str, str] = field(default_factory=dict)
    gpus: int | None = None
    """Of the whole server, by our reading; None: the command is wrong and must be refused."""

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def exported(engine: str, model: str, version: str) -> Iterator[Case]:
    """The commands of the head of each exported plan; plans that no node layout allows are passed over."""
    gpus = 32 if "llama" not in model else 16
    table = {
        "model": model,
        "engine": engine,
        "engine_version": version,
        "cluster": {"gpus": gpus, "gpu": "h200"},
        "workload": {"isl": 2000, "osl": 500, "concurrency": 64},
    }
    study = study_from_document(table, Path("case.toml"))
    candidates = study_space(study).candidates
    made = 0
    for candidate in candidates[:: max(len(candidates) // (2 * PLANS), 1)]:
        scored = score_plan(study, format_plan(candidate.layout, engine))
        if scored.result is None or made == PLANS:
            continue
        try:
            plan = make_export(study, scored.result, asked=LaunchOptions(version=version))
        except InputError:
            continue  # `kv_fits_longest`, `whole_nodes` and their like: said to the user, nothing is exported
        made += 1
        yield case_of(f"{model} {plan.service.plan}", model, plan)


def case_of(name: str, model: str, plan: LaunchPlan) -> Case:
    """The command of the head of an exported plan."""
    head = plan.replicas[0].head
    return Case(
        id=name,
        config=MODELS[model],
        argv=tuple(_text(a) for a in head.argv[plan.program_words :]),
        env={k: v for k, v in head.env.items() if k != "CUDA_VISIBLE_DEVICES"},
        gpus=plan.service.layout.gpus // plan.service.layout.replicas,
    )


def _text(arg: Arg) -> str:
    """An argument with the values that a start would fill in."""
    match arg:
        case str():
            return arg
        case NodeHost():
            return f"{arg.scheme}10.0.0.{arg.node + 1}" + ("" if arg.port is None else f":{arg.port}")
        case NodeRank():
            return str(arg.rank * arg.each)
        case HostSlots() | FilePath() | Variable():
            raise TypeError(f"no engine's server takes {arg!r}")


WRONG: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "vllm": (
        ("deepseek-v3", ("--tensor-parallel-size", "7")),
        ("llama-3.1-70b", ("--tensor-parallel-size", "48")),
        ("deepseek-v3", ("--tensor-parallel-size", "0")),
        ("deepseek-v3", ("--no-such-option", "1")),
        ("deepseek-v3", ("--all2all-backend", "deepep_medium_latency")),
        ("deepseek-v3", ("--kv-cache-dtype", "int3")),
        ("deepseek-v3", ("--gpu-memory-utilization", "1.7")),
        ("deepseek-v3", ("--tensor-parallel-size", "8", "--decode-context-parallel-size", "3")),
        (
            "deepseek-v3",
            (
                "--tensor-parallel-size",
                "4",
                "--prefill-context-parallel-size",
                "2",
                "--decode-context-parallel-size",
                "4",
            ),
        ),
        ("llama-3.1-70b", ("--tensor-parallel-size", "8", "--decode-context-parallel-size", "8")),
        ("deepseek-v3", ("--tensor-parallel-size", "8", "--eplb-config", '{"num_redundant_experts": 8}')),
        ("llama-3.1-70b", ("--max-model-len", "99999999")),
    ),
    "sglang": (
        ("deepseek-v3", ("--tp-size", "eight")),
        ("deepseek-v3", ("--no-such-option", "1")),
        ("deepseek-v3", ("--moe-a2a-backend", "shallowep")),
        ("deepseek-v3", ("--kv-cache-dtype", "int3")),
        ("deepseek-v3", ("--tp-size", "8", "--enable-prefill-cp", "--attn-cp-size", "2", "--cp-strategy", "spiral")),
        ("deepseek-v3", ("--tp-size",)),
        ("deepseek-v3", ("--mem-fraction-static", "most")),
        ("deepseek-v3", ("--chunked-prefill-size", "2k")),
        ("deepseek-v3", ("--attn-dp-size", "all")),
        ("deepseek-v3", ("--ep-num-redundant-experts", "some")),
        ("deepseek-v3", ("--context-length", "1.5")),
        ("deepseek-v3", ("--cuda-graph-backend-decode", "sometimes")),
        ("deepseek-v3", ("--tp-size", "8", "--attn-dp-size", "3")),
        ("deepseek-v3", ("--tp-size", "8", "--enable-prefill-cp", "--attn-cp-size", "2", "--dcp-size", "2")),
    ),
}
"""Engine -> model and options that its own code refuses."""


def wrong(engine: str) -> Iterator[Case]:
    """The commands that must be refused."""
    for model, options in WRONG[engine]:
        before = ("deepseek",) if engine == "vllm" else ("--model-path", "deepseek")
        yield Case(id=f"wrong: {' '.join(options)}", config=MODELS[model], argv=(*before, *options))
