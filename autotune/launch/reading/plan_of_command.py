"""What commands mean: the layout and knobs of what they start, per engine, and what they leave open."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.engines import split_layers
from autotune.launch.engines.dtypes import kv_dtype
from autotune.launch.reading.option_reader import Values
from autotune.launch.reading.parse import Command
from costmodel.arch import Arch
from costmodel.errors import InputError, Problem
from costmodel.plan.layout import Layout

SPANNING_A2A = (
    "ascend_fuseep",
    "deepep",
    "deepep_v2",
    "flashinfer",
    "flashinfer_megamoe",
    "megamoe",
    "mooncake",
    "mori",
    "nixl",
    "pplx",
)
"""All-to-all backends of SGLang that set EP to the width of a stage (`_A2A_EP_SPANNING_BACKENDS`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """A layout as a command says it; the layers of each stage may stay open."""

    replicas: int
    pp: int
    attn_tp: int
    attn_dp: int
    attn_cp: int
    moe_tp: int
    moe_ep: int
    dcp: int
    redundant_experts: int
    stage_layers: tuple[int, ...] | None

    def layout(self, arch: Arch | None, engine: str) -> Layout | None:
        """The layout, its stages as the engine splits them where nothing else is said; None without layers."""
        stages = self.stage_layers
        if stages is None and arch is not None and self.pp <= arch.num_hidden_layers:
            stages = split_layers(engine, arch.num_hidden_layers, self.pp)
        if stages is None:
            return None
        return Layout(
            replicas=self.replicas,
            pp=self.pp,
            attn_tp=self.attn_tp,
            attn_dp=self.attn_dp,
            attn_cp=self.attn_cp,
            moe_tp=self.moe_tp,
            moe_ep=self.moe_ep,
            dcp=self.dcp,
            redundant_experts=self.redundant_experts,
            stage_layers=stages,
        )


def vllm_axes(values: Values, arch: Arch | None, servers: int) -> Axes:
    """vLLM's flags: data parallelism of a dense model is replicas, EP is TP x PCP x DP or 1."""
    tp, pp, dp = (values.one(f"{n}_parallel_size") for n in ("tensor", "pipeline", "data"))
    cp, dcp = values.one("prefill_context_parallel_size"), values.one("decode_context_parallel_size")
    expert = values.on("enable_expert_parallel")
    is_moe = expert or values.on("enable_eplb") or dp > 1 if arch is None else arch.is_moe
    if arch is None and not expert and dp > 1:
        values.said.append("model not known: taken for a mixture of experts because of --data-parallel-size")
    if not is_moe and dp > 1:
        values.said.append(f"--data-parallel-size {dp} of a dense model: {dp} independent servers each")
    width = tp * cp * (dp if is_moe else 1)
    return Axes(
        replicas=servers * (1 if is_moe else dp),
        pp=pp,
        attn_tp=tp,
        attn_dp=dp if is_moe else 1,
        attn_cp=cp,
        moe_tp=width if is_moe and not expert else 1,
        moe_ep=width if is_moe and expert else 1,
        dcp=dcp,
        redundant_experts=_vllm_redundant(values) if values.on("enable_eplb") else 0,
        stage_layers=values.stages(values.command.env.get("VLLM_PP_LAYER_PARTITION"), pp),
    )


def _vllm_redundant(values: Values) -> int:
    text = values.text("eplb_config")
    try:
        table = json.loads(text) if text else {}
        return int(table.get("num_redundant_experts", 0)) if isinstance(table, dict) else 0
    except (ValueError, TypeError, RecursionError):
        values.problems.append(Problem(path="--eplb-config", message=f"must be a JSON object, got {str(text)[:100]!r}"))
        return 0


def sglang_axes(values: Values, arch: Arch | None, servers: int) -> Axes:
    """SGLang's flags: TP is the width of a stage; `--dp-size` is attention-DP with the old flag, else replicas."""
    width, pp, cp = values.one("tp_size"), values.one("pp_size"), values.one("attn_cp_size")
    old, copies = values.on("enable_dp_attention"), values.one("dp_size")
    dp = values.number("attn_dp_size") or 1 if "attn_dp_size" in values.command.options.options else 1
    if old and dp == 1:
        dp, copies = copies, 1
    ep = values.one("ep_size")
    if values.text("moe_a2a_backend") in SPANNING_A2A:
        if ep not in (1, width):
            values.said.append(f"--moe-a2a-backend sets EP to the width of a stage: {width} instead of {ep}")
        ep = width
    if values.one("moe_dp_size") > 1:
        values.said.append("--moe-dp-size is not modelled and left out")
    is_moe = (ep > 1 or dp > 1) if arch is None else arch.is_moe
    if arch is None and not is_moe:
        values.said.append("model not known: taken for a dense one, since neither EP nor attention-DP is set")
    return Axes(
        replicas=servers * copies,
        pp=pp,
        attn_tp=values.divided(width, dp * cp, "attention-DP x attention-CP must divide --tp-size"),
        attn_dp=dp,
        attn_cp=cp,
        moe_tp=values.divided(width, ep, "--ep-size must divide --tp-size") if is_moe else 1,
        moe_ep=ep if is_moe else 1,
        dcp=1,
        redundant_experts=values.number("ep_num_redundant_experts", 0, least=0) or 0,
        stage_layers=values.stages(values.command.env.get("SGLANG_PP_LAYER_PARTITION"), pp),
    )


def trtllm_axes(values: Values, arch: Arch | None, servers: int) -> Axes:
    """TensorRT-LLM's options and fields: TP is the width of a stage, attention-DP takes all of it."""
    width, pp = values.one("tensor_parallel_size"), values.one("pipeline_parallel_size")
    attention_dp = values.on("enable_attention_dp")
    ep, tp = values.number("moe_expert_parallel_size"), values.number("moe_tensor_parallel_size")
    is_moe = ((ep or 1) > 1 or (tp or 1) > 1 or attention_dp) if arch is None else arch.is_moe
    if arch is None and not is_moe:
        values.said.append("model not known: taken for a dense one, since neither EP nor attention-DP is set")
    if ep is None:
        ep = values.divided(width, tp, "moe_tensor_parallel_size must divide the tensor parallel size") if tp else 1
    split = values.text("pp_partition")
    return Axes(
        replicas=servers,
        pp=pp,
        attn_tp=1 if attention_dp else width,
        attn_dp=width if attention_dp else 1,
        attn_cp=values.one("context_parallel_size"),
        moe_tp=values.divided(width, ep, "the expert parallel size must divide the tensor one") if is_moe else 1,
        moe_ep=ep if is_moe else 1,
        dcp=1,
        redundant_experts=_trtllm_redundant(values, arch),
        stage_layers=values.stages(
            None if split is None else re.sub(r"[\[\] ]+", " ", split).strip().replace(" ", ","), pp
        )
        if split is not None
        else None,
    )


def _trtllm_redundant(values: Values, arch: Arch | None) -> int:
    slots = values.number("moe_config.load_balancer.num_slots")
    if slots is None:
        return 0
    if arch is None:
        values.said.append("model not known: how many of the expert slots are redundant is left open, 0 taken")
        return 0
    return max(slots - arch.num_experts, 0)


AXES = {"vllm": vllm_axes, "sglang": sglang_axes, "trtllm": trtllm_axes}
_LENGTH = {"vllm": "max_model_len", "sglang": "context_length", "trtllm": "max_seq_len"}
_SEQS = {"vllm": "max_num_seqs", "sglang": "max_running_requests", "trtllm": "max_batch_size"}
_TOKENS = {"vllm": "max_num_batched_tokens", "sglang": "chunked_prefill_size", "trtllm": "max_num_tokens"}
_KV = {"vllm": "kv_cache_dtype", "sglang": "kv_cache_dtype", "trtllm": "kv_cache_config.dtype"}
_MEMORY = {
    "vllm": "gpu_memory_utilization",
    "sglang": "mem_fraction_static",
    "trtllm": "kv_cache_config.free_gpu_memory_fraction",
}


def knobs_of(values: Values, axes: Axes) -> dict[str, Any]:
    """Token budget, sequences, lengths and dtypes, per attention-DP rank; None where the engine decides at start."""
    engine = values.command.engine
    ranks = axes.attn_dp if engine == "sglang" else 1  # SGLang divides both by attention-DP
    seqs, tokens = values.number(_SEQS[engine]), values.number(_TOKENS[engine])
    kv = values.text(_KV[engine])
    memory = values.text(_MEMORY[engine])
    if memory is None and engine == "trtllm":
        memory = values.text("free_gpu_memory_fraction")
    default = values.command.options.default(_MEMORY[engine].rpartition(".")[2], gpu_gib=values.gpu_gib)
    return {
        "concurrency": None,
        "max_num_batched_tokens": None if tokens is None else max(tokens // ranks, 1),
        "max_num_seqs": None if seqs is None else max(seqs // ranks, 1),
        "weight_dtype": values.text("quantization"),
        "kv_dtype": None if kv is None else kv_dtype(engine, kv),
        "max_model_len": values.number(_LENGTH[engine]) if values.text(_LENGTH[engine]) not in ("auto", "-1") else None,
        "memory_fraction": _fraction(values, memory) if memory is not None else default,
    }


def _fraction(values: Values, text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 1.0:
        values.problems.append(Problem(path="memory fraction", message=f"must lie between 0 and 1, got {text[:40]!r}"))
        return None
    return value


def is_head(command: Command) -> bool:
    """Whether a command is a server's first process; a rank that only the cluster fills in counts as the first."""

    def beyond_first(name: str) -> bool:
        value = command.values.get(name)
        return isinstance(value, str) and value.isdigit() and int(value) > 0

    if command.engine == "vllm":
        later = any(map(beyond_first, ("data_parallel_start_rank", "data_parallel_rank", "node_rank")))
        return not later and command.values.get("headless") is not True
    return not beyond_first("node_rank")


SHOWN: Mapping[str, tuple[str, ...]] = {
    "vllm": (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "prefill_context_parallel_size",
        "decode_context_parallel_size", "enable_expert_parallel", "all2all_backend", "enable_eplb", "max_num_seqs",
        "max_num_batched_tokens", "max_model_len", "gpu_memory_utilization", "kv_cache_dtype", "enforce_eager",
        "nnodes", "data_parallel_backend",
    ),
    "sglang": (
        "tp_size", "pp_size", "attn_dp_size", "dp_size", "attn_cp_size", "ep_size", "moe_a2a_backend",
        "ep_num_redundant_experts", "enable_eplb", "chunked_prefill_size", "max_running_requests",
        "mem_fraction_static", "context_length", "kv_cache_dtype", "nnodes",
    ),
    "trtllm": (
        "tensor_parallel_size", "pipeline_parallel_size", "moe_expert_parallel_size", "max_batch_size",
        "max_num_tokens", "max_seq_len", "free_gpu_memory_fraction", "enable_chunked_prefill", "backend",
    ),
}  # fmt: skip
"""Options that decide about plan, memory and load: their defaults are shown where nothing is said."""


def defaults_of(values: Values) -> dict[str, Any]:
    """What the version takes for the options that were left out; None: it finds the value when it starts."""
    command = values.command
    said = {*command.values, *(name.rpartition(".")[2] for name in command.values)}
    return {
        name: command.options.default(name, gpu_gib=values.gpu_gib)
        for name in SHOWN[command.engine]
        if name in command.options.options and name not in said
    }


def same_servers(commands: Sequence[Command]) -> None:
    """Raises `InputError` where the servers differ in anything that decides about their plan."""
    first = commands[0]
    problems = []
    for other in commands[1:]:
        if other.engine != first.engine:
            problems.append(f"engines {first.engine} and {other.engine}")
            continue
        if other.model != first.model:
            problems.append(f"models {first.model!r} and {other.model!r}")
        problems += [
            f"{name} {first.values.get(name, 'default')!s:.60} and {other.values.get(name, 'default')!s:.60}"
            for name in SHOWN[first.engine]
            if name in first.values.keys() | other.values.keys() and first.values.get(name) != other.values.get(name)
        ]
    if problems:
        raise InputError.single(
            "FILE", "servers must be copies of one plan, they differ in " + "; ".join(dict.fromkeys(problems))
        )
