"""What makes servers of an engine a pool that prefills or one that decodes: options, files and the front.

Read in vLLM's docs/features/nixl_connector_usage.md, SGLang 0.5.23 (srt/arg_groups) with sglang-router 0.3.2, and
TensorRT-LLM's docs/source/features/disagg-serving.md. Conditional disaggregation, by which prompts skip the prefill
pool, in docs.nvidia.com/dynamo/v1.6.2/advanced-customizations/conditional-disaggregation and lib/kv-router/src/
conditional_disagg.rs of ai-dynamo/dynamo, tensorrt_llm/serve/openai_disagg_service.py and llmapi/disagg_utils.py of
TensorRT-LLM, and pkg/epp/framework/plugins/scheduling/profilehandler/disagg of llm-d-router. Dynamo's router and
TensorRT-LLM's front send a prompt to the decode pool only where some of it is cached there: a share that is computed of
1 is not below a threshold of 1, and a match of no token does not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.command_line import Arg, CommandLine, FilePath, NodeHost
from autotune.engines.engine import ANY_HOST
from autotune.engines.options import OptionList
from autotune.launch.plan import Folder
from autotune.launch.quoting import to_yaml
from autotune.space.pool_plan import ROLES
from autotune.study.wider_search import LocalPrefill
from costmodel.arch import Arch
from costmodel.arch.attention import Latent
from costmodel.errors import InputError

DECIDER_FILE = "pd-decider.yaml"
EVENT_BUFFER = 1024
"""Events that a TensorRT-LLM server keeps for its front, as its own tests have it."""


def check_front(engine: str, target: str, local: LocalPrefill | None) -> None:
    """Raises `InputError`, `local_prefill`: the target's front sends no such prompts to the decode pool."""
    if local is None:
        return
    if target == "vllm":
        raise InputError.single(
            "--target",
            "local_prefill: vLLM's toy proxy sends every prompt to the prefill pool, and the plan has "
            f"{local.frac:.0%} of them prefilled by the decode pool: take llm-d or disaggregatedset"
            + ("" if local.cold else ", or dynamo"),
        )
    if local.cold and target in ("dynamo", "trtllm"):
        front = "Dynamo's router" if target == "dynamo" else "TensorRT-LLM's front"
        also = ": take llm-d or disaggregatedset" if engine == "vllm" else ""
        raise InputError.single(
            "--target",
            f"local_prefill: {front} sends a prompt to the decode pool only where some of it is cached there, and of "
            f"some of the plan's nothing is{also}",
        )


def front_fields(local: LocalPrefill) -> dict[str, Any]:
    """What TensorRT-LLM's front is told."""
    return {"conditional_disagg_config": {"max_local_prefill_length": local.max_tokens}}


def decider(local: LocalPrefill) -> str:
    """The plugin of llm-d's router that decides, as its configuration has it."""
    plugin = {"type": "prefix-based-pd-decider", "parameters": {"nonCachedTokens": local.max_tokens + 1}}
    return to_yaml([plugin])


def with_events(content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of a TensorRT-LLM generation server whose front knows what it has cached."""
    cache = {**content.get("kv_cache_config", {}), "enable_block_reuse": True, "event_buffer_max_size": EVENT_BUFFER}
    return {**content, "kv_cache_config": cache}


PREFILL = ROLES[0]
SIDE_CHANNEL_PORT = 5600
"""Of vLLM's NIXL connector; a server takes one port from it on for each data-parallel rank."""
BOOTSTRAP_PORT = 8998
"""At which SGLang's prefill servers tell decode servers where a prompt's cache lies."""
FRONT_PORT = 8100
FRONT_FILE = "disagg_config.yaml"
KV_ROLES = dict(zip(ROLES, ("kv_producer", "kv_consumer"), strict=True))


TOY_PROXY, TOY_HEALTH_PATH = "tests/v1/kv_connector/nixl_integration/toy_proxy_server.py", "/healthcheck"
TOY_FOLDER = Folder(
    variable="VLLM_SOURCE", text="a checkout of vLLM on NODE_0, whose toy proxy spreads requests over both pools"
)
"""The proxy lies with vLLM's tests, which no package holds."""
REQUEST_S = 3600
"""That TensorRT-LLM's front waits for an answer, queueing included; its own 180 s end requests that wait for a slot."""


def pool_argv(options: OptionList, role: str, argv: Sequence[Arg], index: int) -> tuple[Arg, ...]:
    """A server's command as one of its pool; `index` is its place among the servers of its node.

    Raises:
        InputError: the engine's version has no option for it.
    """
    line = CommandLine(options)
    line.argv = list(argv)
    if options.engine == "vllm":
        config = {
            "kv_connector": ENGINES["vllm"].connector,
            "kv_role": KV_ROLES[role],
            "kv_load_failure_policy": "fail",
        }
        line.value("kv_transfer_config", json.dumps(config, separators=(",", ":")))
    elif options.engine == "sglang":
        line.value("disaggregation_mode", role)
        line.value("disaggregation_transfer_backend", ENGINES["sglang"].connector or "")
        if role == PREFILL:
            line.value("disaggregation_bootstrap_port", BOOTSTRAP_PORT + index)
    return line.done()


def pool_ports(engine: str, role: str, index: int, ranks: int, *, head: bool) -> tuple[int, ...]:
    """Where the other pool reaches a server's process; `index` is as in `pool_argv`, of servers of so many ranks."""
    if engine == "vllm":
        first = SIDE_CHANNEL_PORT + index * max(ranks, 1)
        return tuple(range(first, first + max(ranks, 1)))
    return (BOOTSTRAP_PORT + index,) if engine == "sglang" and role == PREFILL and head else ()


def side_channel(argv: Sequence[Arg], node: int, port: int) -> tuple[Arg, ...]:
    """A vLLM command with where its NIXL side channel listens, which only the node's own address can say."""
    host = NodeHost(node=node, scheme="VLLM_NIXL_SIDE_CHANNEL_HOST=")
    return ("env", host, f"VLLM_NIXL_SIDE_CHANNEL_PORT={port}", *argv)


def pair_environment(engine: str, arch: Arch, prefill_tp: int, decode_tp: int) -> dict[str, str]:
    """Variables of both pools' servers: how caches travel, and SGLang's buffer between unequal attention TP.

    The latter is for caches of KV heads: a latent is the same on every rank.
    """
    if engine == "vllm":
        return {"UCX_TLS": "all", "UCX_NET_DEVICES": "all"}
    if engine == "trtllm":
        return {"TRTLLM_NIXL_KVCACHE_BACKEND": "UCX", "TRTLLM_ENABLE_KVCACHE_RECEIVE_PARALLEL": "1"}
    unequal = prefill_tp != decode_tp and not all(isinstance(a, Latent) for a in arch.attentions)
    return {"SGLANG_DISAGG_STAGING_BUFFER": "1"} if engine == "sglang" and unequal else {}


def pool_config(
    options: OptionList, role: str, content: dict[str, Any], longest_prompt: int, *, skips: bool
) -> dict[str, Any]:
    """A configuration file of TensorRT-LLM as one of its pool's; `skips`: whether prompts skip the prefill pool.

    Raises:
        InputError: the engine's version has no field for it.
    """
    options.require("cache_transceiver_config", in_file=True)
    out = {**content, "cache_transceiver_config": {"backend": "NIXL", "max_tokens_in_buffer": longest_prompt}}
    if role == PREFILL:
        options.require("disable_overlap_scheduler", in_file=True)
        out["disable_overlap_scheduler"] = True
    elif skips:
        options.require("kv_cache_config.event_buffer_max_size", in_file=True)
        out = with_events(out)
    return out


def front_argv(engine: str, prefill: Sequence[NodeHost], decode: Sequence[NodeHost], start_s: int) -> tuple[Arg, ...]:
    """What spreads requests over both pools, whose servers may take so long to start.

    That of TensorRT-LLM reads a file that names them (`front_config`).
    """
    router = ENGINES[engine].router
    if engine == "sglang" and router is not None:
        line = CommandLine(router.options()).flag("pd_disaggregation")
        for host, port in zip(prefill, bootstrap_ports(prefill), strict=True):
            line.values("prefill", [host, str(port)])
        for host in decode:
            line.value("decode", host)
        return (
            line.value("worker_startup_timeout_secs", start_s).value("host", ANY_HOST).value("port", FRONT_PORT).done()
        )
    if engine == "trtllm":
        waits = ("--server_start_timeout", str(start_s), "--request_timeout", str(REQUEST_S))
        return ("trtllm-serve", "disaggregated", "-c", FilePath(name=FRONT_FILE), *waits)
    if engine == "vllm":
        out: list[Arg] = ["python3", TOY_PROXY, "--host", ANY_HOST, "--port", str(FRONT_PORT)]
        for name, hosts in (("prefiller", prefill), ("decoder", decode)):
            out += [f"--{name}-hosts", *(NodeHost(node=h.node) for h in hosts)]
            out += [f"--{name}-ports", *(str(h.port) for h in hosts)]
        return tuple(out)
    raise InputError.single("--target", f"disaggregated_front: none is written for {engine}")


def bootstrap_ports(prefill: Sequence[NodeHost]) -> list[int]:
    """Of each prefill server: one apart for each on the same node."""
    seen: dict[int, int] = {}
    out = []
    for host in prefill:
        out.append(BOOTSTRAP_PORT + seen.get(host.node, 0))
        seen[host.node] = seen.get(host.node, 0) + 1
    return out


def front_config(prefill: Sequence[str], decode: Sequence[str], local: LocalPrefill | None) -> dict[str, Any]:
    """What TensorRT-LLM's front reads; servers as HOST:PORT, `local` those prompts that skip the prefill servers."""
    skips = {} if local is None else front_fields(local)
    router = {} if local is None else {"router": {"type": "kv_cache_aware"}}
    return {
        "hostname": ANY_HOST,
        "port": FRONT_PORT,
        "backend": "pytorch",
        "context_servers": {"num_instances": len(prefill), "urls": list(prefill)},
        "generation_servers": {"num_instances": len(decode), "urls": list(decode), **router},
        **skips,
    }
