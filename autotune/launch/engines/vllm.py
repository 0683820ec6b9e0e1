"""vLLM: one `vllm serve` per node of a replica.

Parallel arithmetic (vllm/config/parallel.py, vllm/engine/arg_utils.py of 0.24 and 0.33): GPUs of a server = DP x PP x
PCP x TP, data parallelism outermost. A data-parallel rank that fits a node is started by its node with
`--data-parallel-size-local` and `--data-parallel-start-rank`; one that spans nodes by `--nnodes` and `--node-rank`.
Nodes other than the head run `--headless`. The token budget and the sequences are those of one data-parallel rank.
"""

from __future__ import annotations

import json

from autotune.launch.engines.command import CommandLine
from autotune.launch.engines.dtypes import kv_name, weight_name
from autotune.launch.engines.options import OptionList
from autotune.launch.nodes import Slice, dp_outermost, node_count, rank_map, replica_slices
from autotune.launch.plan import Arg, Health, LaunchPlan, NodeHost, NodeProcess, NodeRank, Replica, Service
from costmodel.errors import InputError

HTTP_PORT = 8000
RPC_PORT = 29550
MASTER_PORT = 29501
STARTUP_S = 3600.0
"""Allowed for loading weights from shared storage, compiling and capturing graphs."""
EXCHANGES = {"routed": "deepep_low_latency", "gather": "allgather_reducescatter"}
"""How the plan's experts were scored to get their tokens -> `--all2all-backend`."""


def launch(service: Service, options: OptionList) -> LaunchPlan:
    """Every process of a vLLM plan.

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
        files={},
        health=Health(path="/health", startup_s=STARTUP_S),
        assumptions=(*service.assumptions, *_said(service)),
    )


def _said(service: Service) -> tuple[str, ...]:
    said = []
    if service.layout.moe_ep > 1 and service.exchange == "routed":
        said.append(
            "scored with tokens sent only to the ranks of their experts: --all2all-backend deepep_low_latency, which "
            "needs DeepEP in the image; without it take the option out, and expect slower exchange"
        )
    return tuple(said)


def _replica(service: Service, options: OptionList, index: int, slices: tuple[Slice, ...], per_node: int) -> Replica:
    shared = len(slices) == 1 and len(slices[0].gpus) < per_node
    port = HTTP_PORT + (index % (per_node // len(slices[0].gpus)) if shared else 0)
    processes = []
    for rank, part in enumerate(slices):
        answers = rank == 0 or service.hybrid_lb
        processes.append(
            NodeProcess(
                name=f"replica{index}-node{rank}",
                replica=index,
                node=part.node,
                node_rank=rank,
                role="head" if answers else "worker",
                gpus=part.gpus,
                argv=_command(service, options, slices, rank, port),
                env=_environment(service, part, shared=shared),
                http_port=port if answers else None,
                other_ports=(MASTER_PORT, RPC_PORT) if len(slices) > 1 and rank == 0 else (),
            )
        )
    return Replica(
        index=index,
        nodes=tuple(s.node for s in slices),
        processes=tuple(processes),
        ranks=rank_map(service.layout, slices, dp_outermost),
    )


def _command(service: Service, options: OptionList, slices: tuple[Slice, ...], rank: int, port: int) -> tuple[Arg, ...]:
    layout, limits = service.layout, service.limits
    line = CommandLine(options).positional(service.model)
    if rank == 0 or service.hybrid_lb:
        line.value("host", "0.0.0.0").value("port", port)  # noqa: S104  # a server for other machines
    line.value("tensor_parallel_size", layout.attn_tp, meaning="attention_tp")
    line.value("pipeline_parallel_size", layout.pp)
    if layout.attn_dp > 1:
        line.value("data_parallel_size", layout.attn_dp, meaning="attention_dp")
    if layout.attn_cp > 1:
        line.value("prefill_context_parallel_size", layout.attn_cp)
    if layout.dcp > 1:
        line.value("decode_context_parallel_size", layout.dcp)
    _nodes(line, service, slices, rank)
    if layout.moe_ep > 1:
        line.flag("enable_expert_parallel")
        if service.exchange in EXCHANGES:
            line.value("all2all_backend", EXCHANGES[service.exchange])
    if layout.redundant_experts:
        line.flag("enable_eplb")
        line.value("eplb_config", json.dumps({"num_redundant_experts": layout.redundant_experts}))
    line.value("max_model_len", limits.max_model_len)
    line.value("max_num_seqs", limits.max_num_seqs, meaning="per_attention_dp_rank")
    line.value("max_num_batched_tokens", limits.max_num_batched_tokens, meaning="per_attention_dp_rank")
    line.value("gpu_memory_utilization", limits.gpu_memory_utilization, meaning="of_total")
    if service.knobs.kv_dtype is not None:
        choices = options.require("kv_cache_dtype").choices
        line.value("kv_cache_dtype", kv_name("vllm", service.knobs.kv_dtype, choices))
    if service.knobs.weight_dtype is not None:
        quantization = weight_name("vllm", service.knobs.weight_dtype, own_checkpoint=service.model_given)
        if quantization is not None:
            line.value("quantization", quantization)
    if not service.cuda_graphs:
        line.flag("enforce_eager")
    return line.done()


def _nodes(line: CommandLine, service: Service, slices: tuple[Slice, ...], rank: int) -> None:
    """The options that make one server of several nodes."""
    if len(slices) == 1:
        return
    layout, head = service.layout, NodeHost(node=slices[0].node)
    group, local = layout.pp * layout.attn_tp * layout.attn_cp, len(slices[0].gpus)
    if group <= local and local % group == 0:
        each = local // group
        line.value("data_parallel_size_local", each)
        line.value("data_parallel_address", head).value("data_parallel_rpc_port", RPC_PORT)
        if service.hybrid_lb:
            line.flag("data_parallel_hybrid_lb")
        if rank or service.hybrid_lb:
            line.value("data_parallel_start_rank", NodeRank(rank=rank, each=each))
    elif group % local == 0 and not service.hybrid_lb:
        line.value("nnodes", len(slices)).value("node_rank", NodeRank(rank=rank))
        line.value("master_addr", head).value("master_port", MASTER_PORT)
        if layout.attn_dp > 1:
            line.value("data_parallel_rpc_port", RPC_PORT)
    else:
        hybrid = ", whole inside one for --hybrid-lb" if service.hybrid_lb else ""
        raise InputError.single(
            "plan",
            "dp_rank_nodes: vLLM's data-parallel rank (pp x attn_tp) must fit a node a whole number of times or take "
            f"whole nodes{hybrid}, got {group} GPUs per rank, {local} GPUs per node",
        )
    if rank and not service.hybrid_lb:
        line.flag("headless")


def _environment(service: Service, part: Slice, *, shared: bool) -> dict[str, str | NodeHost]:
    env: dict[str, str | NodeHost] = {}
    if shared:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, part.gpus))
    if len(set(service.layout.stage_layers)) > 1:
        env["VLLM_PP_LAYER_PARTITION"] = ",".join(map(str, service.layout.stage_layers))
    return env
