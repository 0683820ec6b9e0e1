"""What goes in comes out: tokens, FLOPs and bytes from a request to the GPUs, summed from the model alone."""

from __future__ import annotations

from autotune.scoring.plan_result import PlanResult
from autotune.study import Study
from costmodel.arch import Arch, stored_in
from costmodel.arch.attention import Attention, AttentionKind
from costmodel.arch.block import ONE_RANK
from costmodel.arch.ffn import Experts
from costmodel.arch.weights import cache_bytes, weight_bytes
from costmodel.dtypes import bytes_per_weight, compute_dtype, kv_bytes
from costmodel.estimate.result import WEIGHT_KINDS
from tests.properties.given import REL, Found, Given

READ_WHOLE = (AttentionKind.FULL, AttentionKind.MLA)
"""Kinds of attention that read all of a sequence's cache for each token."""

LEFT_OUT = 0.002
"""Share of a model's weights that memory leaves out: gains of norms inside a block, and biases."""


def tokens(given: Given) -> Found:
    """Tokens in and out are those of the requests, all of them and per GPU, and Little's law holds."""
    work = given.study.workload
    for plan in given.plans:
        m, gpus = plan.metrics, plan.metrics["gpus"]
        wanted = {
            "output_tokens_per_s": m["requests_per_s"] * work.osl.mean,
            "total_tokens_per_s": m["requests_per_s"] * (work.isl.mean + work.osl.mean),
            "total_tokens_per_s_per_gpu": m["total_tokens_per_s"] / gpus,
            "output_tokens_per_s_per_gpu": m["output_tokens_per_s"] / gpus,
            "e2e_s": m["ttft_s"] + m["tpot_s"] * max(work.osl.mean - 1.0, 0.0),
        }
        for name, figure in wanted.items():
            if abs(m[name] - figure) > 1e-9 * abs(figure):
                yield f"{plan.plan} {name} = {m[name]}, not {figure}"
        if work.request_rate_per_s is None and plan.pools is None:
            flight = m["requests_per_s"] * m["e2e_s"]
            if abs(flight - plan.knobs.concurrency) > 1e-6 * plan.knobs.concurrency:
                yield f"{plan.plan}: {flight} in flight by Little's law, not {plan.knobs.concurrency}"
        ttft = sum(plan.breakdown["ttft_parts_s"].values())
        if abs(ttft - m["ttft_s"]) > 1e-9 * ttft:
            yield f"{plan.plan}: parts of TTFT sum to {ttft}, not {m['ttft_s']}"


def flops(given: Given) -> Found:
    """GPUs are as busy with arithmetic as the model's matrices take for the tokens that are served, at least.

    Attention to the cache comes on top, and what every rank of a group computes for itself.
    """
    peaks, served = given.study.cluster.gpu.peak_flops_per_s, _served_tokens(given.study)
    for plan in given.plans:
        least = _math_s(stored_in(given.study.arch, plan.knobs.weight_dtype), peaks, *served)
        spent = plan.metrics["compute_util_frac"] * plan.metrics["gpus"]
        if spent < plan.metrics["requests_per_s"] * least * (1.0 - REL):
            yield f"{plan.plan}: {spent} GPUs compute, {plan.metrics['requests_per_s'] * least} are needed"


def bytes_held(given: Given) -> Found:
    """The GPUs of a replica hold the model and the cache of what decodes, at least, and none holds more than a model.

    What is shown is of the GPU that fills first: all of them hold no more than so many times that. Of several stages
    it may be one with more activations and less of the model.
    """
    for plan in (p for p in given.plans if p.feasible):
        arch = stored_in(given.study.arch, plan.knobs.weight_dtype)
        held, layout = plan.breakdown["memory_bytes"], plan.layout
        if any(size < 0.0 for size in held.values()):
            yield f"{plan.plan}: negative bytes in {held}"
        own, model = sum(held.get(kind, 0.0) for kind in WEIGHT_KINDS), weight_bytes(arch)
        copies = 1.0 + layout.redundant_experts / max(arch.num_experts, 1)
        if own > model * copies * (1.0 + REL):
            yield f"{plan.plan}: a GPU holds {own} bytes of a model of {model}"
        if plan.pools is not None:
            continue
        cache = _decoding(plan, given.study) / layout.replicas * cache_bytes(
            arch, int(given.study.workload.isl.mean), plan.knobs.kv_dtype
        )  # fmt: skip
        fullest = own + held.get("kv_cache", 0.0) if layout.pp == 1 else sum(held.values())
        every = fullest * layout.gpus / layout.replicas
        if every < (model * (1.0 - LEFT_OUT) + cache) * (1.0 - REL):
            yield f"{plan.plan}: {every} bytes on a replica's GPUs, of a model of {model} and {cache} of cache"


def bytes_read(given: Given) -> Found:
    """Memory moves at least the cache that each decode step looks back at, as often as a request has steps."""
    axes, work, hbm = given.study.axes, given.study.workload, given.study.cluster.gpu.hbm_bytes_per_s
    steps = max(work.osl.mean - 1.0, 0.0)
    steps /= 1.0 if axes.speculative is None else axes.speculative.accepted_per_step
    for plan in given.plans:
        m, arch = plan.metrics, given.study.arch
        size = kv_bytes(plan.knobs.kv_dtype or arch.kv_dtype), bytes_per_weight(arch.activation_dtype)
        looked_at = sum(
            float(group.block.cache_bytes(work.isl.mean, ONE_RANK, *size)) * group.count
            for group in arch.groups
            if isinstance(group.block, Attention) and group.block.kind in READ_WHOLE
        )
        moved = m["bandwidth_util_frac"] * m["gpus"] * hbm
        if moved < m["requests_per_s"] * steps * looked_at * (1.0 - REL):
            yield f"{plan.plan}: {moved} bytes/s, {m['requests_per_s'] * steps * looked_at} of the cache alone"


def _decoding(plan: PlanResult, study: Study) -> float:
    """Requests that decode at once, by Little's law."""
    outputs = max(study.workload.osl.mean - 1.0, 0.0)
    return plan.metrics["requests_per_s"] * plan.metrics["tpot_s"] * outputs


def _served_tokens(study: Study) -> tuple[float, float]:
    """Tokens of one request that go through all layers, and those that are sampled."""
    work = study.workload
    return max(work.isl.mean * (1.0 - work.prefix_cache_hit_frac), 1.0) + work.osl.mean - 1.0, work.osl.mean


def _math_s(arch: Arch, peaks: dict[str, float], through: float, sampled: float) -> float:
    """Time at the peaks that a model's matrices take for so many tokens, its head for those that are sampled."""
    total = arch.vocab_size * arch.hidden_size * sampled / peaks[compute_dtype(arch.lm_head_dtype, peaks)]
    for group in arch.groups:
        for matrix in group.block.matrices(arch.hidden_size, ONE_RANK):
            reached = 1.0 if matrix.multiplied else 0.0
            if isinstance(group.block, Experts) and matrix.name == "experts":
                reached = float(group.block.routed / group.block.experts)
            params = float(matrix.n * matrix.k * matrix.count) * group.count * reached
            total += params * through / peaks[compute_dtype(group.block.dtype_of(matrix.name), peaks)]
    return 2.0 * total
