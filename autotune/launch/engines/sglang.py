"""SGLang: one `sglang.launch_server` per node of a replica, and a router over the replicas.

Parallel arithmetic (sglang/srt/server_args.py and arg_groups/parallel_hook.py of 0.5.9, 0.5.22 and 0.5.23): `--tp-size`
is the width W of a pipeline stage; attention TP = W / attention-DP / attention-CP; experts' TP = W / EP. With
attention-DP the engine divides `--chunked-prefill-size` and `--max-running-requests` by it, so that both are written
for all ranks together. An all-to-all backend sets EP to W.
"""

from __future__ import annotations

from autotune.engines.layout_rules import dense_shards_whole
from autotune.launch.engines.command import CommandLine
from autotune.launch.engines.dtypes import kv_name, weight_name
from autotune.launch.engines.options import OptionList, option_list, versions
from autotune.launch.nodes import Slice, node_count, rank_map, replica_slices, stage_outermost
from autotune.launch.plan import Arg, Health, LaunchPlan, NodeHost, NodeProcess, NodeRank, Replica, Service
from costmodel.errors import InputError

HTTP_PORT = 30000
PORTS_APART = 300
"""Between servers on one node: each uses ports up to about 260 above its own (`ZMQ_TCP_PORT_DELTA` is 233)."""
DIST_PORT = 20000
ROUTER_PORT = 8000
STARTUP_S = 3600.0
"""Allowed for loading weights from shared storage, compiling and capturing graphs."""
ROUTER = "sglang_router"


def launch(service: Service, options: OptionList) -> LaunchPlan:
    """Every process of an SGLang plan.

    Raises:
        InputError: the plan cannot be placed on nodes, or the version has no option for something in it.
    """
    slices = replica_slices(service.cluster, service.layout)
    _check_nodes(service, len(slices[0]))
    per_node = service.cluster.gpus_per_node
    replicas = tuple(_replica(service, options, i, s, per_node) for i, s in enumerate(slices))
    return LaunchPlan(
        service=service,
        nodes=tuple(f"NODE_{i}" for i in range(node_count(service.cluster))),
        gpus_per_node=per_node,
        replicas=replicas,
        router=_router(replicas) if len(replicas) > 1 else None,
        files={},
        health=Health(path="/health", startup_s=STARTUP_S),
        assumptions=(*service.assumptions, *_said(service)),
    )


def _said(service: Service) -> tuple[str, ...]:
    limits = service.limits
    said = [
        (
            f"--mem-fraction-static {limits.static_fraction:g} is weights and KV cache alone; with activations, CUDA "
            f"graphs and buffers beside it the GPU is filled to {limits.gpu_memory_utilization:g}, as scored"
        )
    ]
    if service.exchange == "routed":
        said.append(
            "scored with tokens sent only to the ranks of their experts: --moe-a2a-backend deepep, which needs DeepEP "
            "in the image; without it take the option out, and expect slower exchange"
        )
    if service.layout.replicas > 1:
        said.append(f"the router's options are those of {ROUTER} {versions(ROUTER)[0]}")
    return tuple(said)


def _check_nodes(service: Service, nodes: int) -> None:
    pp = service.layout.pp
    if nodes % pp and pp % nodes:
        raise InputError.single(
            "plan",
            "stages_per_node: SGLang gives every node whole pipeline stages or every stage whole nodes: pp must "
            f"divide the nodes of a replica or be a multiple of them, got pp={pp}, nodes={nodes}",
        )


def _replica(service: Service, options: OptionList, index: int, slices: tuple[Slice, ...], per_node: int) -> Replica:
    shared = len(slices) == 1 and len(slices[0].gpus) < per_node
    place = index % (per_node // len(slices[0].gpus)) if shared else 0
    port = HTTP_PORT + PORTS_APART * place
    processes = tuple(
        NodeProcess(
            name=f"replica{index}-node{rank}",
            replica=index,
            node=part.node,
            node_rank=rank,
            role="worker" if rank else "head",
            gpus=part.gpus,
            argv=_command(service, options, slices, rank, port),
            env=_environment(service, part, shared=shared),
            http_port=None if rank else port,
            other_ports=(DIST_PORT,) if len(slices) > 1 and not rank else (),
        )
        for rank, part in enumerate(slices)
    )
    return Replica(
        index=index,
        nodes=tuple(s.node for s in slices),
        processes=processes,
        ranks=rank_map(service.layout, slices, stage_outermost),
    )


def _command(service: Service, options: OptionList, slices: tuple[Slice, ...], rank: int, port: int) -> tuple[Arg, ...]:
    layout, limits = service.layout, service.limits
    line = CommandLine(options).value("model_path", service.model)
    line.value("host", "0.0.0.0").value("port", port)  # noqa: S104  # a server for other machines
    line.value("tp_size", layout.width, meaning="stage_width").value("pp_size", layout.pp)
    _attention_dp(line, options, layout.attn_dp)
    if layout.attn_cp > 1:
        line.value("attn_cp_size", layout.attn_cp)
    if service.arch.is_moe:
        _experts(line, service)
    line.value(
        "chunked_prefill_size", limits.max_num_batched_tokens * layout.attn_dp, meaning="over_attention_dp_ranks"
    )
    line.value("max_running_requests", limits.max_num_seqs * layout.attn_dp, meaning="over_attention_dp_ranks")
    line.value("mem_fraction_static", limits.static_fraction, meaning="of_total")
    line.value("context_length", limits.max_model_len)
    if service.knobs.kv_dtype is not None:
        choices = options.require("kv_cache_dtype").choices
        line.value("kv_cache_dtype", kv_name("sglang", service.knobs.kv_dtype, choices))
    if service.knobs.weight_dtype is not None:
        quantization = weight_name("sglang", service.knobs.weight_dtype, own_checkpoint=service.model_given)
        if quantization is not None:
            line.value("quantization", quantization)
    if not service.cuda_graphs:
        if "cuda_graph_backend_decode" in options.options:
            line.value("cuda_graph_backend_decode", "disabled")
        else:
            line.flag("disable_cuda_graph")
    if len(slices) > 1:
        line.value("nnodes", len(slices)).value("node_rank", NodeRank(rank=rank))
        line.value("dist_init_addr", NodeHost(node=slices[0].node, port=DIST_PORT))
    return line.done()


def _attention_dp(line: CommandLine, options: OptionList, attn_dp: int) -> None:
    """Attention data parallelism, as the version spells it."""
    if attn_dp == 1:
        return
    if "attn_dp_size" in options.options:
        line.value("attn_dp_size", attn_dp, meaning="attention_dp")
    else:
        line.value("dp_size", attn_dp, meaning="attention_dp_if_enabled").flag("enable_dp_attention")
    line.flag("enable_dp_lm_head")  # the head is scored as split over attention TP


def _experts(line: CommandLine, service: Service) -> None:
    layout = service.layout
    line.value("ep_size", layout.moe_ep, meaning="expert_parallel")
    if service.exchange == "routed":
        line.value("moe_a2a_backend", "deepep")
    if layout.redundant_experts:
        line.value("ep_num_redundant_experts", layout.redundant_experts).flag("enable_eplb")
    if not dense_shards_whole(service.arch, layout.width):
        line.value("moe_dense_tp_size", 1)


def _environment(service: Service, part: Slice, *, shared: bool) -> dict[str, str | NodeHost]:
    env: dict[str, str | NodeHost] = {}
    if shared:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, part.gpus))
    if len(set(service.layout.stage_layers)) > 1:
        env["SGLANG_PP_LAYER_PARTITION"] = ",".join(map(str, service.layout.stage_layers))
    return env


def _router(replicas: tuple[Replica, ...]) -> NodeProcess:
    """Spreads requests over the replicas, so that those with a common prefix meet its cache (`cache_aware`)."""
    options = option_list(ROUTER, versions(ROUTER)[0])
    line = CommandLine(options)
    urls: list[Arg] = [NodeHost(node=r.nodes[0], port=r.head.http_port, scheme="http://") for r in replicas]
    line.values("worker_urls", urls)
    line.value("policy", "cache_aware")
    line.value("worker_startup_timeout_secs", int(STARTUP_S))
    line.value("host", "0.0.0.0").value("port", ROUTER_PORT)  # noqa: S104  # a server for other machines
    return NodeProcess(
        name="router",
        replica=0,
        node=replicas[0].nodes[0],
        node_rank=0,
        role="router",
        gpus=(),
        argv=line.done(),
        http_port=ROUTER_PORT,
    )
