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

from costmodel.arch.attention import Attention
from costmodel.arch.ffn import Dense, Experts
from costmodel.plan.columns import ArchColumns, Floats, LayoutColumns
from costmodel.plan.stages import HEAD_STAGE
from costmodel.step.attention_cores import attention_kernels
from costmodel.step.expert_routing import rank_load
from costmodel.step.kernel_laws import Rate
from costmodel.step.step_inputs import Machine, layers_of
from costmodel.step.step_work import StepWork

BATCHES = 2.0


def step_batches(layout: LayoutColumns, work: StepWork) -> Floats | None:
    """Batches that each plan runs a pass of `work` as, shape `(num_plans,)`; None: one, in all of them."""
    if not layout.two_batch_overlap.any():
        return None
    tokens = work.prefill_tokens + work.decoded
    least = np.where(work.prefill_tokens > 0.0, layout.overlap_prompt_tokens, layout.overlap_decode_tokens)
    return np.where((layout.two_batch_overlap > 0.0) & (tokens >= least), BATCHES, 1.0)


def exposed_frac(exchange_s: Floats, computation_s: Floats, batches: Floats) -> Floats:
    """Share of an exchange that no computation hides, of `exchange_s` and `computation_s` of all batches of a layer."""
    visible = np.maximum(exchange_s - computation_s, 0.0) / np.maximum(exchange_s, 1e-12)
    return np.where(batches > 1.0, visible, 1.0)


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
    """Group of layers, or `head` (`costmodel.plan.stages.layer_kinds`)."""
    group: str
    """Of `GROUPS`."""
    seconds: Floats
    flops: Floats | float = 0.0
    hbm_bytes: Floats | float = 0.0
    message_bytes: Floats | float = 0.0
    """What one rank puts into a collective."""


class StepTime:
    """Seconds of one step, by group of layers (one layer) and by operator group (the whole model)."""

    def __init__(self, arch: ArchColumns, *, record: bool = False, batches: Floats | None = None) -> None:
        self.batches = batches
        """Batches that the pass runs as, each of which takes what is booked; None: one, in all plans."""
        self.layers = layers_of(arch)
        self.sends_s: Floats = np.zeros(1)
        """All hand-overs from stage to stage."""
        self._booked: dict[str, dict[str, Floats]] = {}
        """Seconds in one layer, by its group of layers and by operator group."""
        self._layer_s: dict[str, Floats] = {}
        """Their sums, of the layers to which nothing was booked since they were asked for."""
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
        out._booked = {layer: dict(groups) for layer, groups in self._booked.items()}  # noqa: SLF001  # of its own class
        out._layer_s = dict(self._layer_s)  # noqa: SLF001
        out.operators = None if self.operators is None else list(self.operators)
        return out

    @property
    def per_layer_s(self) -> dict[str, Floats]:
        """Seconds of one layer of each group of layers."""
        for layer, groups in self._booked.items():
            if layer not in self._layer_s:
                first, *others = groups.values()
                self._layer_s[layer] = sum(others, first)
        return self._layer_s

    @property
    def total_s(self) -> Floats:
        """Of the whole model, from the first stage to the last."""
        return sum((s * self.layers[layer] for layer, s in self.per_layer_s.items()), self.sends_s)

    @property
    def group_s(self) -> dict[str, Floats]:
        """Seconds of the whole model by operator group; they sum to `total_s`."""
        out: dict[str, Floats] = {}
        for layer, groups in self._booked.items():
            for group, seconds in groups.items():
                out[group] = out.get(group, 0.0) + seconds * self.layers[layer]
        return {**out, "pp_send": self.sends_s} if self.sends_s.any() else out

    def add(self, layer: str, group: str, seconds: Floats, **about: Any) -> None:
        """Book one operator's seconds in one layer; `about`: fields of `Operator` that are not its default."""
        seconds = self.of_all_batches(seconds)
        self._book(layer, group, seconds)
        if self.operators is not None:
            self.operators.append(Operator(**{"name": group, **about}, layer=layer, group=group, seconds=seconds))

    def of_all_batches(self, of_one: Floats) -> Floats:
        """Of the whole pass, what one of its batches takes."""
        return of_one if self.batches is None else of_one * self.batches

    def _book(self, layer: str, group: str, seconds: Floats) -> None:
        groups = self._booked.setdefault(layer, {})
        groups[group] = groups[group] + seconds if group in groups else seconds
        self._layer_s.pop(layer, None)

    def add_kernel(  # noqa: PLR0913  # one for each column of a kernel
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
        seconds = self.of_all_batches(seconds if present is None else np.where(present, seconds, 0.0))
        flops, hbm_bytes = self.of_all_batches(flops), self.of_all_batches(hbm_bytes)
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
    batches = step_batches(machine.layout, work)
    out = StepTime(machine.arch, record=record, batches=batches)
    work = work if batches is None else work.part(batches)
    tokens = (work.prefill_tokens + work.decoded) / machine.layout.attn_cp
    _projections(out, machine, tokens, work.sampled)
    _attention(out, machine, work)
    _between(out, machine, tokens)
    return out


def with_experts(machine: Machine, own: StepTime, work: StepWork) -> StepTime:
    """A pass of which `own` is `rank_time`, with the routed experts of `work`'s group; `own` stays as it is."""
    out = own.copy()
    work = work if own.batches is None else work.part(own.batches)
    for group, experts in machine.arch.experts:
        _experts(out, machine, work, group.name, experts)
    return out


def _projections(out: StepTime, machine: Machine, tokens: Floats, sampled: Floats) -> None:
    for gemm in machine.gemms:
        rows = sampled if gemm.layer == HEAD_STAGE else tokens
        about: dict[str, Any] = {"name": gemm.name}
        if out.operators is not None:
            about["flops"] = out.of_all_batches(rows * gemm.flops_per_row)
            about["hbm_bytes"] = out.of_all_batches(gemm.weight_bytes + rows * gemm.row_bytes)
        out.add(gemm.layer, _GROUP_OF_WEIGHTS[gemm.weights], gemm.law.seconds(rows), **about)
    for head, total in machine.gemm_totals.items():
        rows = sampled if head else tokens
        out.math_s = out.math_s + out.of_all_batches(rows * total.math_s_per_row)
        out.hbm_bytes = out.hbm_bytes + out.of_all_batches(total.weight_bytes + rows * total.row_bytes)


def _attention(out: StepTime, machine: Machine, work: StepWork) -> None:
    """Attention over the cache: causal prompts and decoding sequences, each a kernel of its own."""
    for group in machine.arch.attention:
        for kernel in attention_kernels(group.block, machine, work):
            out.add_kernel(
                group.name,
                "attention_core",
                kernel.rate,
                kernel.flops,
                kernel.hbm_bytes,
                name=kernel.name,
                present=kernel.present,
            )


def _experts(out: StepTime, machine: Machine, work: StepWork, layer: str, experts: Experts) -> None:
    """Routed experts of a group of layers on the fullest rank, and the exchange of its tokens."""
    layout, gemms = machine.layout, machine.experts[layer]
    group_tokens = work.prefill_tokens_group + work.decoded * layout.attn_dp
    load = rank_load(experts, layout, group_tokens, machine.popularity_cv2)
    rows = group_tokens * gemms.rows_per_token * load
    hit = gemms.held * (1.0 - np.exp(-group_tokens * gemms.picked_frac))
    hbm_bytes = hit * gemms.weight_bytes + rows * gemms.row_bytes
    padded = (rows + gemms.rate.pad_rows * hit) * gemms.flops_per_row
    out.add_kernel(
        layer,
        "experts",
        gemms.rate,
        rows * gemms.flops_per_row,
        hbm_bytes,
        name="experts",
        issued=padded,
        mean=1.0 / load,
    )
    exchange = machine.exchanges[layer]
    busiest = (work.prefill_tokens + work.decoded) * layout.attn_dp / np.maximum(group_tokens, 1e-9)
    whole = exchange.seconds(group_tokens, busiest)
    exposed: Floats | float = 1.0
    if out.batches is not None:
        computation_s = _mean_attention_s(out, machine) + out.per_layer_s[layer]
        exposed = exposed_frac(out.of_all_batches(whole), computation_s, out.batches)
    if out.operators is None:
        out.add(layer, "ep_exchange", whole * exposed)
        return
    for name, seconds, message_bytes in exchange.phases(group_tokens, busiest):
        out.add(layer, "ep_exchange", seconds * exposed, name=name, message_bytes=message_bytes)


def _mean_attention_s(out: StepTime, machine: Machine) -> Floats:
    """Attention of a layer, mean over the model's."""
    groups = machine.arch.attention
    whole = sum((out.layers[g.name] * out.per_layer_s[g.name] for g in groups), np.zeros(1))
    return whole / np.maximum(sum(out.layers[g.name] for g in groups), 1.0)


def _between(out: StepTime, machine: Machine, tokens: Floats) -> None:
    """What surrounds the kernels of a layer: norms and other small kernels, TP all-reduces, stage sends."""
    arch, layout = machine.arch, machine.layout
    stream = tokens * (arch.hidden_size * arch.activation_bytes)
    small = machine.rates.small
    reduced = machine.tp_reduce.seconds(stream)
    # two norms with their residuals, rope, quantisation: about eight passes over the stream
    passed = 8.0 * stream * arch.residual_streams
    normed = small.moving_s(passed)
    for group in arch.groups:
        if isinstance(group.block, Attention | Dense):
            out.add(group.name, "tp_all_reduce", reduced, message_bytes=stream)
        if group.norm_share.any():
            share = group.norm_share
            out.add(group.name, "norms", normed * share, hbm_bytes=passed * share)
    if (layout.pp > 1).any():
        handed = out.of_all_batches(stream * arch.residual_streams)
        out.send_s = machine.send.seconds(handed)
        out.send_bytes = handed / layout.attn_tp
        out.sends_s = out.send_s * (layout.pp - 1.0)
