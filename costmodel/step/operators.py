"""Seconds of every operator of one step: the one place where FLOPs and bytes become time.

Each operator of a layer is a roofline of its FLOPs and HBM bytes on one rank (`costmodel.kernels`), or a
collective over its group. A step's result holds seconds per layer kind, from which stages are summed, and
seconds by operator group over the whole model, which is the breakdown that users see.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import ArchColumns, Floats
from costmodel.plan.matrices import experts_per_rank, kv_heads_per_rank
from costmodel.step.expert_routing import rank_load
from costmodel.step.kernel_laws import Rate
from costmodel.step.memory import LINEAR_STATE_BYTES
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork

GROUPS = (
    "attention_proj",
    "attention_core",
    "dense_ffn",
    "router",
    "experts",
    "shared_experts",
    "norms",
    "lm_head",
    "tp_all_reduce",
    "ep_exchange",
    "pp_send",
)
PROMPT_CORE, DECODE_CORE, INDEXER = "attention_prefill", "attention_decode", "sparse_index"
"""Names of the kernels of `attention_core`; a step launches both of the first two, also where one has nothing to do."""
_GROUP_OF_WEIGHTS = {
    "attention": "attention_proj",
    "dense_ffn": "dense_ffn",
    "router": "router",
    "experts": "experts",
    "shared_experts": "shared_experts",
    "lm_head": "lm_head",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator of one layer, on the slowest rank. Arrays of shape `(num_plans,)` or `(1,)`."""

    name: str
    layer: str
    """Layer kind: of `costmodel.plan.stages.LAYER_KINDS`."""
    group: str
    """Of `GROUPS`."""
    seconds: Floats
    flops: Floats | float = 0.0
    hbm_bytes: Floats | float = 0.0
    message_bytes: Floats | float = 0.0
    """What one rank puts into a collective."""


class StepTime:
    """Seconds of one step, by layer kind (one layer) and by operator group (the whole model)."""

    def __init__(self, arch: ArchColumns, *, record: bool = False) -> None:
        self.layers: dict[str, Floats] = {
            "full": arch.num_full_layers,
            "window": arch.num_window_layers,
            "mla": arch.num_mla_layers,
            "linear": arch.num_linear_layers,
            "dense": arch.num_dense_layers,
            "moe": arch.num_moe_layers,
            "head": np.ones(1),
        }
        self.per_layer_s: dict[str, Floats] = {}
        self.group_s: dict[str, Floats] = {}
        self.math_s: Floats = np.zeros(1)
        """What the FLOPs of one rank take at the dense peak, whole model; of experts, those of the mean rank."""
        self.hbm_bytes: Floats = np.zeros(1)
        """HBM bytes of one rank, whole model."""
        self.experts_math_s: Floats = np.zeros(1)
        self.experts_hbm_bytes: Floats = np.zeros(1)
        """Those of them that every rank of a stage has a part in, also where one attention rank alone has tokens."""
        self.send_s: Floats = np.zeros(1)
        """One hand-over from a stage to the next."""
        self.send_bytes: Floats = np.zeros(1)
        """What one rank hands over there."""
        self.operators: list[Operator] | None = [] if record else None
        """Every operator that was booked, but for the sends; None where none was asked for."""

    def copy(self) -> StepTime:
        """Another one that goes on from here."""
        out = copy(self)
        out.per_layer_s, out.group_s = dict(self.per_layer_s), dict(self.group_s)
        out.operators = None if self.operators is None else list(self.operators)
        return out

    def add(self, layer: str, group: str, seconds: Floats, **about: Any) -> None:
        """Book one operator's seconds in one layer; `about`: fields of `Operator` that are not its default."""
        self._book(layer, group, seconds)
        if self.operators is not None:
            self.operators.append(Operator(**{"name": group, **about}, layer=layer, group=group, seconds=seconds))

    def _book(self, layer: str, group: str, seconds: Floats) -> None:
        self.per_layer_s[layer] = self.per_layer_s.get(layer, 0.0) + seconds
        self.group_s[group] = self.group_s.get(group, 0.0) + seconds * self.layers[layer]

    def add_kernel(
        self,
        layer: str,
        group: str,
        rate: Rate,
        flops: Floats,
        hbm_bytes: Floats,
        *,
        name: str,
        issued: Floats | None = None,
        mean: Floats | None = None,
        present: NDArray[np.bool_] | None = None,
    ) -> None:
        """Book one kernel, and its ideal times beside.

        `issued`: FLOPs that padding makes of `flops`; `mean`: the mean rank's part of what the fullest has.

        `present` marks the plans whose model has the kernel at all, where a batch mixes models.
        """
        seconds = rate.seconds(flops if issued is None else issued, hbm_bytes)
        seconds = seconds if present is None else np.where(present, seconds, 0.0)
        self._book(layer, group, seconds)
        if self.operators is not None:
            self.operators.append(
                Operator(name=name, layer=layer, group=group, seconds=seconds, flops=flops, hbm_bytes=hbm_bytes)
            )
        math_s = flops * (self.layers[layer] / rate.peak_flops_per_s)
        math_s = math_s if mean is None else math_s * mean
        moved = hbm_bytes * self.layers[layer]
        self.math_s = self.math_s + math_s
        self.hbm_bytes = self.hbm_bytes + moved
        if group == "experts":
            self.experts_math_s, self.experts_hbm_bytes = math_s, moved


def step_time(machine: Machine, work: StepWork, *, record: bool = False) -> StepTime:
    """Seconds of one forward pass of `work` on the slowest rank of each stage; `record` keeps its operators."""
    return with_experts(machine, rank_time(machine, work, record=record), work)


def rank_time(machine: Machine, work: StepWork, *, record: bool = False) -> StepTime:
    """What a rank does of a pass for its own tokens: all but the routed experts."""
    out = StepTime(machine.arch, record=record)
    tokens = (work.prefill_tokens + work.decoded) / machine.layout.attn_cp
    _projections(out, machine, tokens, work.sampled)
    _attention(out, machine, work)
    _between(out, machine, tokens)
    return out


def with_experts(machine: Machine, own: StepTime, work: StepWork) -> StepTime:
    """A pass of which `own` is `rank_time`, with the routed experts of `work`'s group; `own` stays as it is."""
    out = own.copy()
    if machine.arch.num_moe_layers.any():
        _experts(out, machine, work)
    return out


def _projections(out: StepTime, machine: Machine, tokens: Floats, sampled: Floats) -> None:
    for gemm in machine.gemms:
        rows = sampled if gemm.layer == "head" else tokens
        out.add_kernel(
            gemm.layer,
            _GROUP_OF_WEIGHTS[gemm.weights],
            machine.rates.gemm(gemm.weights),
            rows * gemm.flops_per_row,
            gemm.weight_bytes + rows * gemm.row_bytes,
            name=gemm.name,
            present=gemm.present,
        )


def _attention(out: StepTime, machine: Machine, work: StepWork) -> None:
    """Attention over the cache: causal prompts and decoding sequences, each a kernel of its own."""
    arch, layout, rates = machine.arch, machine.layout, machine.rates
    shards = layout.attn_cp * layout.dcp
    heads = arch.heads / layout.attn_tp
    kv_bytes = machine.precision.kv
    contexts = {
        "full": (work.prefill_context, work.decode_context, work.prefill_kv_tokens),
        "window": (
            work.prefill_context_window,
            np.minimum(work.decode_context, arch.window),
            work.prefill_kv_tokens,
        ),
    }
    per_token_kv = 2.0 * kv_heads_per_rank(arch, layout.attn_tp) * arch.head_dim * kv_bytes
    for layer, layers in (("full", arch.num_full_layers), ("window", arch.num_window_layers)):
        if not layers.any():
            continue
        prompt, cached, read = contexts[layer]
        flops = 4.0 * heads * arch.head_dim
        pairs = work.prefill_tokens * prompt / layout.attn_cp
        out.add_kernel(layer, "attention_core", rates.prefill, pairs * flops, read * per_token_kv, name=PROMPT_CORE)
        read = work.decode_sequences * cached / shards  # once for all tokens of a sequence that a step verifies
        pairs = read * work.decode_tokens
        out.add_kernel(layer, "attention_core", rates.decode, pairs * flops, read * per_token_kv, name=DECODE_CORE)
    if arch.num_mla_layers.any():
        _mla(out, machine, work, heads, shards)
    if arch.num_linear_layers.any():
        _linear(out, machine, work)


def _mla(out: StepTime, machine: Machine, work: StepWork, heads: Floats, shards: Floats) -> None:
    """MLA: prompts expand keys and values per head, decoding attends to the latent (absorbed weights)."""
    arch, rates = machine.arch, machine.rates
    latent_bytes = (arch.kv_lora_rank + arch.qk_rope_head_dim) * machine.precision.kv
    sparse = arch.index_topk > 0
    seen_prompt = np.where(sparse, np.minimum(work.prefill_context, arch.index_topk), work.prefill_context)
    seen = np.where(sparse, np.minimum(work.decode_context, arch.index_topk), work.decode_context)
    width = arch.qk_nope_head_dim + arch.qk_rope_head_dim + arch.v_head_dim
    pairs = work.prefill_tokens * seen_prompt / machine.layout.attn_cp
    flops = 2.0 * heads * width
    read = work.prefill_kv_tokens * latent_bytes
    out.add_kernel("mla", "attention_core", rates.mla_prefill, pairs * flops, read, name=PROMPT_CORE)
    read = work.decode_sequences * seen / shards
    pairs = read * work.decode_tokens
    flops = 2.0 * heads * (2.0 * arch.kv_lora_rank + arch.qk_rope_head_dim)
    out.add_kernel("mla", "attention_core", rates.mla_decode, pairs * flops, read * latent_bytes, name=DECODE_CORE)
    if sparse.any():
        # the indexer scores every cached token with each of its heads, in fp8 (DeepSeek-V3.2 report, 2.1)
        scored = work.prefill_tokens * work.prefill_context + work.decoded * work.decode_context
        flops = 2.0 * arch.index_heads * arch.index_head_dim
        read = (work.prefill_kv_tokens + work.decode_sequences * work.decode_context) * arch.index_head_dim
        out.add_kernel("mla", "attention_core", rates.decode, scored * flops, read, name=INDEXER, present=sparse)


def _linear(out: StepTime, machine: Machine, work: StepWork) -> None:
    """Gated delta rule: a decode step reads and writes the state; prompts run in chunks of 64 tokens."""
    arch, rates = machine.arch, machine.rates
    heads = arch.linear_value_heads / machine.layout.attn_tp
    state = arch.linear_key_dim * arch.linear_value_dim
    chunk = 64.0
    per_token = heads * (6.0 * state + 4.0 * chunk * (arch.linear_key_dim + arch.linear_value_dim))
    tokens = work.prefill_tokens
    moved = tokens * heads * (arch.linear_key_dim + arch.linear_value_dim) * 2.0 * arch.activation_bytes
    moved = moved + tokens / chunk * heads * state * LINEAR_STATE_BYTES
    out.add_kernel("linear", "attention_core", rates.prefill, tokens * per_token, moved, name=PROMPT_CORE)
    sequences = work.decode_sequences
    moved = sequences * (2.0 * heads * state * LINEAR_STATE_BYTES)
    flops = work.decoded * (6.0 * heads * state)
    out.add_kernel("linear", "attention_core", rates.decode, flops, moved, name=DECODE_CORE)


def _experts(out: StepTime, machine: Machine, work: StepWork) -> None:
    """Routed experts on the fullest rank, and the exchange of its tokens."""
    arch, layout = machine.arch, machine.layout
    group_tokens = work.prefill_tokens_group + work.decoded * layout.attn_dp
    held = experts_per_rank(arch, layout)
    load = rank_load(arch, layout, group_tokens, machine.popularity_cv2)
    rows = group_tokens * arch.top_k / layout.moe_ep * load
    hit = held * (1.0 - np.exp(-group_tokens * arch.top_k / arch.num_experts))
    weights = arch.ffn_matrices * arch.moe_intermediate_size / layout.moe_tp * arch.hidden_size
    inner = arch.ffn_matrices * arch.moe_intermediate_size / layout.moe_tp
    hbm_bytes = hit * weights * machine.precision.experts + rows * (
        (2.0 * arch.hidden_size + inner) * arch.activation_bytes
    )
    rate = machine.rates.experts
    padded = (rows + rate.pad_rows * hit) * (2.0 * weights)
    out.add_kernel(
        "moe", "experts", rate, rows * (2.0 * weights), hbm_bytes, name="experts", issued=padded, mean=1.0 / load
    )
    busiest = (work.prefill_tokens + work.decoded) * layout.attn_dp / np.maximum(group_tokens, 1e-9)
    if out.operators is None:
        out.add("moe", "ep_exchange", machine.exchange.seconds(group_tokens, busiest))
        return
    for name, seconds, message_bytes in machine.exchange.phases(group_tokens, busiest):
        out.add("moe", "ep_exchange", seconds, name=name, message_bytes=message_bytes)


def _between(out: StepTime, machine: Machine, tokens: Floats) -> None:
    """What surrounds the kernels of a layer: norms and other small kernels, TP all-reduces, stage sends."""
    arch, layout = machine.arch, machine.layout
    stream = tokens * (arch.hidden_size * arch.activation_bytes)
    small = machine.rates.small
    reduced = machine.tp_reduce.seconds(stream)
    for layer, count in (
        ("full", arch.num_full_layers),
        ("window", arch.num_window_layers),
        ("mla", arch.num_mla_layers),
        ("linear", arch.num_linear_layers),
    ):
        if count.any():
            out.add(layer, "tp_all_reduce", reduced, message_bytes=stream)
            # two norms with their residuals, rope, quantisation: about eight passes over the stream
            out.add(layer, "norms", small.seconds(np.zeros(1), 8.0 * stream), hbm_bytes=8.0 * stream)
    if arch.num_dense_layers.any():
        out.add("dense", "tp_all_reduce", reduced, message_bytes=stream)
    if (layout.pp > 1).any():
        out.send_s = machine.send.seconds(stream)
        out.send_bytes = stream / layout.attn_tp
        out.group_s["pp_send"] = out.send_s * (layout.pp - 1.0)
