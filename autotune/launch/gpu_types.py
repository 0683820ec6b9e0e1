"""Which GPUs a node must have, where the pools of a plan are on different types: names of drivers, labels, variables.

NVIDIA's GPU feature discovery labels a node with the driver's name of its GPUs, hyphens for spaces, and appends to it
where GPUs are shared or partitioned (NVIDIA/k8s-device-plugin, internal/lm/resource.go, `productLabel`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from autotune.launch.plan import LaunchPlan
from autotune.launch.quoting import one_line
from costmodel.hardware import Gpu, gpu_names, load_gpu

LABEL, AMD_LABEL = "nvidia.com/gpu.product", "amd.com/gpu.product-name"
"""Node labels that say the GPU: of NVIDIA's feature discovery and of AMD's node labeller."""
TO_FILL_IN = "FILL-IN-"
"""Begins the value of a label that is not known here: no node has it, so that no pod is placed by a guess."""
_QUERY = "nvidia-smi --query-gpu=name --format=csv,noheader"
_AMD_QUERY = "rocm-smi --showproductname | sed -n 's/.*Card [Ss]eries:[[:space:]]*//p'"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """GPUs that a node must have."""

    gpu: str
    """As the catalog calls them, or the study its own, on one line."""
    product: str | None
    """As their driver does; None: not known here."""
    gpus: int
    """Of one node."""
    query: str
    """Prints the driver's name of each GPU, a line each."""

    @property
    def variable(self) -> str:
        """Of `nodes.env`, with the driver's name."""
        return f"GPU_NAME_{re.sub(r'[^A-Z0-9]+', '_', self.gpu.upper()).strip('_')}"


def product_label(gpu: Gpu) -> str | None:
    """Value of the node label that says the GPU; None: not known here."""
    return None if gpu.product is None or gpu.is_amd else gpu.product.replace(" ", "-")


def node_selector(plan: LaunchPlan) -> dict[str, str]:
    """The label of the nodes that a pool may be placed on; empty where any node will do."""
    if not plan.node_types:
        return {}
    gpu = plan.service.cluster.gpu
    unknown = TO_FILL_IN + re.sub(r"[^A-Za-z0-9._-]+", "-", gpu.name).strip("-._")
    return {AMD_LABEL if gpu.is_amd else LABEL: product_label(gpu) or unknown}


def node_types(plan: LaunchPlan) -> dict[str, NodeType]:
    """What every node must have, by its name in `nodes.env`; empty where all are alike."""
    return {
        name: NodeType(
            gpu=one_line(own.gpu.name),
            product=own.gpu.product,
            gpus=own.gpus_per_node,
            query=_AMD_QUERY if own.gpu.is_amd else _QUERY,
        )
        for name, own in zip(plan.nodes, plan.node_types, strict=False)
    }


def node_ranges(plan: LaunchPlan) -> list[tuple[str, NodeType]]:
    """The nodes of each pool in words, `NODE_0 to NODE_3`, with what they must have; empty where all are alike."""
    kinds = node_types(plan)
    out = []
    for kind in types_of(plan):
        names = [name for name, own in kinds.items() if own.gpu == kind.gpu]
        out.append((names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}", kind))
    return out


def types_of(plan: LaunchPlan) -> list[NodeType]:
    """Each of them once."""
    return list({kind.gpu: kind for kind in node_types(plan).values()}.values())


def gpu_of_label(value: str, known: Iterable[Gpu]) -> str | None:
    """The GPU that a node label names, of those that are known or else of the catalog; None: it names none."""
    for gpu in (*known, *map(load_gpu, gpu_names())):
        if product_label(gpu) == value:
            return gpu.name
    return None
