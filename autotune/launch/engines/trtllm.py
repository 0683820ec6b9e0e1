"""TensorRT-LLM: one `trtllm-serve` per replica with a file of the LLM API; over several nodes, MPI starts it.

Parallel arithmetic (tensorrt_llm/mapping.py, llmapi/llm_args.py): `tensor_parallel_size` is the width W of a stage,
`moe_tensor_parallel_size x moe_expert_parallel_size = W`, attention-DP takes the whole stage. The KV fraction is of the
memory that is *free* after weights and activations. Batch size and token budget are those of one rank.
"""

from __future__ import annotations

from typing import Any

from autotune.engines import split_layers
from autotune.launch.engines.command import CommandLine
from autotune.launch.engines.dtypes import kv_name, weight_name
from autotune.launch.engines.options import OptionList
from autotune.launch.nodes import (
    Slice,
    node_count,
    rank_map,
    replica_slices,
    stage_outermost_experts_inner,
)
from autotune.launch.plan import Arg, FilePath, Health, HostSlots, LaunchPlan, NodeHost, NodeProcess, Replica, Service
from autotune.launch.quoting import to_yaml

HTTP_PORT = 8000
STARTUP_S = 3600.0
"""Allowed for loading weights from shared storage, tuning kernels and capturing graphs."""
CONFIG = "llm_api.yaml"


def launch(service: Service, options: OptionList) -> LaunchPlan:
    """Every process of a TensorRT-LLM plan.

    Raises:
        InputError: the plan cannot be placed on nodes, or the version has no option for something in it.
    """
    slices = replica_slices(service.cluster, service.layout)
    per_node = service.cluster.gpus_per_node
    return LaunchPlan(
        service=service,
        nodes=tuple(f"NODE_{i}" for i in range(node_count(service.cluster))),
        gpus_per_node=per_node,
        replicas=tuple(_replica(service, options, i, s, per_node) for i, s in enumerate(slices)),
        router=None,
        files={CONFIG: to_yaml(llm_api(service, options))},
        health=Health(path="/health", startup_s=STARTUP_S),
        assumptions=(*service.assumptions, *_said(service, len(slices[0]))),
    )


def _said(service: Service, nodes: int) -> tuple[str, ...]:
    limits = service.limits
    said = [
        (
            f"free_gpu_memory_fraction {limits.kv_free_fraction:g} is of what weights and activations leave free, by "
            f"the memory model: {limits.kv_room_bytes / 2**30:.1f} GiB of KV cache on the fullest GPU"
        )
    ]
    if nodes > 1:
        said.append(
            "MPI starts the ranks of other nodes: it needs ssh without a password from each replica's first node"
        )
    return tuple(said)


def llm_api(service: Service, options: OptionList) -> dict[str, Any]:
    """Content of the LLM-API file.

    Raises:
        InputError: a field that the version does not have, or a dtype that the engine has no option for.
    """
    layout, limits = service.layout, service.limits

    def field(name: str, meaning: str | None = None) -> str:
        return options.require(name, meaning=meaning, in_file=True).name.rpartition(".")[2]

    out: dict[str, Any] = {
        field("tensor_parallel_size", "stage_width"): layout.width,
        field("pipeline_parallel_size"): layout.pp,
    }
    if service.arch.is_moe:
        out[field("moe_tensor_parallel_size", "moe_tp")] = layout.moe_tp
        out[field("moe_expert_parallel_size", "expert_parallel")] = layout.moe_ep
    out[field("enable_attention_dp", "whole_stage")] = layout.attn_dp > 1
    stages = layout.stage_layers
    own = stages == split_layers("trtllm", sum(stages), layout.pp)
    if len(set(stages)) > 1 and ("pp_partition" in options.fields or not own):
        out[field("pp_partition")] = list(stages)
    if layout.pp * layout.width > service.cluster.gpus_per_node:
        out[field("gpus_per_node")] = service.cluster.gpus_per_node
    out[field("max_batch_size", "per_attention_dp_rank")] = limits.max_num_seqs
    out[field("max_num_tokens", "per_attention_dp_rank")] = limits.max_num_batched_tokens
    out[field("max_seq_len")] = limits.max_model_len
    out[field("enable_chunked_prefill")] = True
    kv: dict[str, Any] = {field("kv_cache_config.free_gpu_memory_fraction", "of_free"): limits.kv_free_fraction}
    if service.knobs.kv_dtype is not None:
        kv[field("kv_cache_config.dtype")] = kv_name("trtllm", service.knobs.kv_dtype, ())
    out[field("kv_cache_config")] = kv
    if service.knobs.weight_dtype is not None:
        weight_name("trtllm", service.knobs.weight_dtype, own_checkpoint=service.model_given)
    graphs = {field("cuda_graph_config.enable_padding"): True,
              field("cuda_graph_config.max_batch_size"): limits.max_num_seqs}  # fmt: skip
    out[field("cuda_graph_config")] = graphs if service.cuda_graphs else None
    if layout.redundant_experts:
        slots = service.arch.num_experts + layout.redundant_experts
        balancer = {"num_slots": slots, "layer_updates_per_iter": 1}
        out[field("moe_config")] = {field("moe_config.load_balancer"): balancer}
    return out


def _replica(service: Service, options: OptionList, index: int, slices: tuple[Slice, ...], per_node: int) -> Replica:
    shared = len(slices) == 1 and len(slices[0].gpus) < per_node
    port = HTTP_PORT + (index % (per_node // len(slices[0].gpus)) if shared else 0)
    env: dict[str, str | NodeHost] = {}
    if shared:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, slices[0].gpus))
    process = NodeProcess(
        name=f"replica{index}-node0",
        replica=index,
        node=slices[0].node,
        node_rank=0,
        role="head",
        gpus=slices[0].gpus,
        argv=(*_mpi(slices), *_command(service, options, port)),
        env=env,
        http_port=port,
    )
    return Replica(
        index=index,
        nodes=tuple(s.node for s in slices),
        processes=(process,),
        ranks=rank_map(service.layout, slices, stage_outermost_experts_inner),
    )


def _mpi(slices: tuple[Slice, ...]) -> tuple[Arg, ...]:
    """What starts one rank per GPU over several nodes; one node's ranks are started by the server itself."""
    if len(slices) == 1:
        return ()
    each = len(slices[0].gpus)
    hosts = HostSlots(nodes=tuple(s.node for s in slices), slots=each)
    return ("mpirun", "-n", str(each * len(slices)), "--host", hosts, "trtllm-llmapi-launch")


def _command(service: Service, options: OptionList, port: int) -> tuple[Arg, ...]:
    limits = service.limits
    line = CommandLine(options).positional(service.model)
    line.value("host", "0.0.0.0").value("port", port)  # noqa: S104  # a server for other machines
    line.value("backend", "pytorch")
    # also on the command line: the server sizes its buffers by these before it reads the file
    line.value("max_batch_size", limits.max_num_seqs, meaning="per_attention_dp_rank")
    line.value("max_num_tokens", limits.max_num_batched_tokens, meaning="per_attention_dp_rank")
    line.value("max_seq_len", limits.max_model_len)
    line.value("extra_llm_api_options", FilePath(name=CONFIG))
    return line.done()
