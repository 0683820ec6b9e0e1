"""How NVIDIA Dynamo runs engines: its worker of each, and what its operator adds to a worker's command.

Read in docs.nvidia.com/dynamo/v1.6.1/reference/compatibility, deploy/operator/internal/dynamo/backend_*.go and
examples/backends/*/deploy/v1beta1 of ai-dynamo/dynamo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

WORKERS_OWN_OPTIONS = (
    "--is-prefill-worker", "--is-decode-worker", "--disaggregation-mode", "--connector", "--endpoint", "--dyn-",
    "--namespace", "--served-model-name", "--store-kv", "--request-plane", "--event-plane", "--migration-limit",
    "--publish-events-and-metrics", "--custom-jinja-template", "--modality", "--router-", "--kv-router",
)  # fmt: skip
"""Beginnings of options that its workers take for themselves, whatever engine they run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamoBackend:
    """How NVIDIA Dynamo runs an engine."""

    framework: str
    """`backendFramework` of a DynamoGraphDeployment."""
    module: str
    """Python module of its worker."""
    image: str
    """What NVIDIA publishes; `{release}` stands for Dynamo's release that is written for."""
    version: str
    """Of the engine in that image."""
    model_option: str
    operator_options: Mapping[str, int]
    """Options that the operator, the runtime or the configuration file sets -> how many values they take."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    table_options: tuple[str, ...] = ()
    """Options that take JSON, written as one option per key, since the operator hands commands to a shell."""
    file_option: str = ""
    """Option that names the configuration file."""
    own_options: tuple[str, ...] = ()
    """Arguments that the worker needs beside the server's."""
    roles_are_the_servers: bool = False
    """Whether the server's own options say which pool it is of; else the worker has one for it."""
    address_variable: str = ""
    """Variable of a pool's workers with the pod's address, where caches are handed over."""
    event_arguments: tuple[str, ...] = ()
    """Arguments by which a worker tells the router what it has cached."""
    counts_degrees: bool = False
    """Whether the operator counts tensor x pipeline x data parallelism when it joins nodes, and nothing else."""


VLLM = DynamoBackend(
    framework="vllm",
    module="dynamo.vllm",
    image="nvcr.io/nvidia/ai-dynamo/vllm-runtime:{release}",
    version="0.31.0",
    model_option="--model",
    operator_options={
        "--api-server-count": 1,  # Dynamo's frontend takes the requests
        "--data-parallel-size-local": 1,
        "--data-parallel-address": 1,
        "--data-parallel-rpc-port": 1,
        "--data-parallel-start-rank": 1,
        "--data-parallel-hybrid-lb": 0,
        "--nnodes": 1,
        "--node-rank": 1,
        "--master-addr": 1,
        "--master-port": 1,
        "--headless": 0,
        "--host": 1,
        "--port": 1,
    },
    annotations={"nvidia.com/vllm-distributed-executor-backend": "mp"},
    table_options=("--eplb-config",),
    address_variable="VLLM_NIXL_SIDE_CHANNEL_HOST",
    event_arguments=(
        "--kv-events-config",
        '{"publisher":"zmq","topic":"kv-events","endpoint":"tcp://*:20080","enable_kv_cache_events":true}',
    ),
    counts_degrees=True,
)
SGLANG = DynamoBackend(
    framework="sglang",
    module="dynamo.sglang",
    image="nvcr.io/nvidia/ai-dynamo/sglang-runtime:{release}",
    version="0.5.21",
    model_option="--model-path",
    operator_options={"--dist-init-addr": 1, "--nnodes": 1, "--node-rank": 1, "--port": 1},
    own_options=("--skip-tokenizer-init",),  # Dynamo's frontend has the tokenizer
    roles_are_the_servers=True,
)
TRTLLM = DynamoBackend(
    framework="trtllm",
    module="dynamo.trtllm",
    image="nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:{release}",
    version="1.3.0",
    model_option="--model-path",
    # sizes stand in the file as well, under the worker's names of these options
    operator_options={
        "--host": 1,
        "--port": 1,
        "--backend": 1,
        "--max_batch_size": 1,
        "--max_num_tokens": 1,
        "--max_seq_len": 1,
    },
    file_option="--extra-engine-args",
    event_arguments=("--publish-kv-events",),
)
