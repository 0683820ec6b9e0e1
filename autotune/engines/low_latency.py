"""DeepEP's low-latency kernels: the buffer that they keep on each GPU, and what they do not take.

Each rank keeps room for what every rank may send to every expert in one step, so that the buffer grows with the tokens
of a step and not with those that are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from autotune.engines.dtype_facts import Place
from costmodel.hardware import Gpu
from costmodel.plan.layout import Layout

GIB = 2**30
MOST_BYTES = 32 * GIB
"""Of one buffer (vllm-project/vllm#57894)."""
MOST_TOKENS = 1024
"""Of one rank to another in a step: `FINISHED_SUM_TAG` of DeepEP (sglang/srt/layers/moe/token_dispatcher/deepep.py)."""
HIDDEN_SIZES = (2048, 2560, 3072, 4096, 5120, 6144, 7168, 8192)
"""For which the kernels are compiled (vllm/model_executor/layers/fused_moe/prepare_finalize/deepep_ll.py)."""
NOT_COMPILED_FOR = ("ampere", "ada")
"""Beginnings of generations without SM90's features, for which setup.py of DeepEP says "Disable internode and
low-latency kernels"."""
HEAP_VARIABLE, HEAP_BYTES = "ROCSHMEM_HEAP_SIZE", 7_524_589_824
"""Of rocSHMEM on each GPU, in which ROCm's DeepEP has its buffer, and the size that it served DeepSeek-V3 with
(vllm-project/vllm#34692, #39721); by itself it is `HEAP_BESIDE_BYTES`."""
HEAP_BESIDE_BYTES = GIB
"""Left beside a larger buffer: what rocSHMEM's own heap is, which other programs do with."""
CONTEXTS_VARIABLE, CONTEXTS = "ROCSHMEM_MAX_NUM_CONTEXTS", 256
"""Of rocSHMEM, 32 by itself: "Required for LL" (vllm-project/vllm#34692)."""
SCALE_BLOCK = 128
"""Elements of a token that share a scale of 4 bytes on the way back."""


SCORED = "scored with tokens sent only to the ranks of their experts: "
"""What an assumption about the exchange begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeKernels:
    """What a server is started with to send tokens to the ranks of their experts; else it gathers all of a stage."""

    low_latency: bool
    throughput: bool
    """Whether it also has kernels that send a token once to each domain."""
    bytes_per_token: float
    """Buffer of the low-latency kernels on each GPU, for each token that a rank may send in a step."""
    tokens: int
    """That there is room for at least."""
    beside_bytes: float = 0.0
    """Of the memory on each GPU that the buffer lies in, what holds other things."""
    least_bytes: float = 0.0
    """Of that memory at least."""


ANY_KERNELS = ExchangeKernels(low_latency=True, throughput=True, bytes_per_token=0.0, tokens=0)
NO_KERNELS = ExchangeKernels(low_latency=False, throughput=False, bytes_per_token=0.0, tokens=0)


def kernels_of(place: Place, layout: Layout, *, tokens: int, pads: bool, throughput: bool) -> ExchangeKernels:
    """DeepEP's kernels where they take the plan, arguments as those of `refusal`; none of them otherwise."""
    arch = place.arch
    hidden = padded_hidden(arch.hidden_size)
    if hidden is None or refusal(place, layout, tokens=tokens, room_bytes=inf, pads=pads) is not None:
        return NO_KERNELS
    size = buffer_bytes(experts=arch.num_experts + layout.redundant_experts, hidden_size=hidden, tokens=1)
    heap = {"beside_bytes": HEAP_BESIDE_BYTES, "least_bytes": HEAP_BYTES} if place.gpu.is_amd else {}
    return ExchangeKernels(low_latency=True, throughput=throughput, bytes_per_token=float(size), tokens=tokens, **heap)


def padded_hidden(hidden_size: int) -> int | None:
    """The next hidden size that the kernels are compiled for; None: it is larger than all of them."""
    return next((size for size in HIDDEN_SIZES if size >= hidden_size), None)


def buffer_bytes(*, experts: int, hidden_size: int, tokens: int) -> int:
    """The buffer of one GPU: two of sending and two of receiving, each with room for every expert and token.

    `get_low_latency_rdma_size_hint` of DeepEP, whose counters of 4 bytes an expert are left out.
    """
    message = 2 * hidden_size + 4 * (hidden_size // SCALE_BLOCK)
    return 4 * experts * tokens * message


def memory_bytes(gpu: Gpu, buffer: int) -> int:
    """What a buffer takes of a GPU: on AMD's the whole heap of rocSHMEM that it lies in."""
    return max(buffer + HEAP_BESIDE_BYTES, HEAP_BYTES) if gpu.is_amd else buffer


def heap_variables(gpu: Gpu, memory: int) -> dict[str, str]:
    """Variables that DeepEP needs on a GPU; none on NVIDIA's. `memory` is that of `memory_bytes`."""
    return {HEAP_VARIABLE: str(memory), CONTEXTS_VARIABLE: str(CONTEXTS)} if gpu.is_amd else {}


def library(gpu: Gpu) -> str:
    """DeepEP, as an image must have it for a GPU."""
    return (
        "ROCm's own DeepEP (github.com/ROCm/DeepEP, built for the nodes' NICs, on rocSHMEM)" if gpu.is_amd else "DeepEP"
    )


def refusal(place: Place, layout: Layout, *, tokens: int, room_bytes: float, pads: bool) -> str | None:
    """Why a plan cannot exchange its experts' tokens with these kernels, by the name of a rule; None: it can.

    Args:
        place: the model, and the GPUs that exchange.
        layout: the plan's.
        tokens: that a rank may dispatch in one step.
        room_bytes: free for the buffer on each GPU.
        pads: whether the engine pads tokens to the next hidden size of the kernels.
    """
    arch = place.arch
    experts = arch.num_experts + layout.redundant_experts
    padded = padded_hidden(arch.hidden_size)
    if place.gpu.generation.startswith(NOT_COMPILED_FOR):
        return f"low_latency_gpu: DeepEP has none for {place.gpu.generation} GPUs"
    if layout.moe_tp > 1:
        return f"low_latency_whole_experts: they send tokens to whole experts, the plan cuts each in {layout.moe_tp}"
    if experts % layout.moe_ep:
        return f"low_latency_even_experts: {experts} experts on {layout.moe_ep} ranks are not the same number on each"
    if padded is None or (padded != arch.hidden_size and not pads):
        return f"low_latency_hidden_size: there is no kernel for a hidden size of {arch.hidden_size:,}"
    if tokens > MOST_TOKENS:
        return f"low_latency_tokens: a rank may send {MOST_TOKENS:,} tokens a step, the plan has {tokens:,}"
    size = memory_bytes(place.gpu, buffer_bytes(experts=experts, hidden_size=padded, tokens=tokens))
    most = memory_bytes(place.gpu, MOST_BYTES)
    if size > min(room_bytes, most):
        free = min(max(room_bytes, 0.0), most)
        return f"low_latency_buffer: it takes {size / GIB:.1f} GiB on each GPU, of which {free / GIB:.1f} GiB are free"
    return None


def needed(option: str, gpu: Gpu, memory: int) -> str:
    """The assumption that an option which asks for these kernels rests on."""
    return (
        f"{SCORED}{option}, which needs {library(gpu)} in the image and {memory / GIB:.1f} GiB of buffer on each GPU; "
        "without it take the option out, and expect slower exchange"
    )
