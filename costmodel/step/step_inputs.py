"""What every step of a batch of plans runs on: matrices, rates, links, and what follows from them once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.arch.block import EXPERTS
from costmodel.arch.ffn import Experts
from costmodel.plan.columns import ArchColumns, Floats, Ints, LayoutColumns
from costmodel.plan.exchange_backend import ANY_BACKEND, ExchangeBackend
from costmodel.plan.matrices import RankMatrix, rank_matrices
from costmodel.plan.placement import Placement
from costmodel.plan.precision import PrecisionColumns
from costmodel.plan.stages import HEAD_STAGE
from costmodel.step.collectives import Exchange, Law, Links, all_reduce, pipeline_send
from costmodel.step.kernel_laws import Rate, RowLaw
from costmodel.step.kernel_rates import Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """A plain GEMM of one layer over a step's rows: what of it does not change from step to step.

    All of it is 0 in plans whose model does not have the matrix.
    """

    name: str
    layer: str
    weights: str
    """Weight kind, which decides the rate."""
    flops_per_row: Floats
    weight_bytes: Floats
    row_bytes: Floats
    """Inputs and outputs of one row."""
    law: RowLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmTotals:
    """What a model's GEMMs over the same rows take at the peaks. Arrays have shape `(num_plans,)` or `(1,)`."""

    math_s_per_row: Floats
    weight_bytes: Floats
    row_bytes: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertGemms:
    """The routed experts of one layer on the fullest rank: what of them does not change from step to step."""

    rows_per_token: Floats
    """On the mean rank, for each token of the group."""
    picked_frac: Floats
    """Share of all experts that a token goes to."""
    held: Floats
    """Experts on the rank."""
    flops_per_row: Floats
    weight_bytes: Floats
    """Of one expert."""
    row_bytes: Floats
    """Inputs, outputs and what is between them, of one row."""
    rate: Rate


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Everything about a batch that a step needs and that does not change from step to step."""

    arch: ArchColumns
    layout: LayoutColumns
    precision: PrecisionColumns
    placement: Placement
    links: Links
    rates: Rates
    matrices: tuple[RankMatrix, ...]
    popularity_cv2: Floats
    """Squared coefficient of variation of the experts' popularity; 0 is balanced (`costmodel.step.expert_routing`)."""

    backend: ExchangeBackend = ANY_BACKEND
    """How tokens may be sent to the ranks of their experts."""

    def slice(self, part: Ints) -> Machine:
        """That of some of the plans."""
        arch, layout, skew = self.arch.slice(part), self.layout.slice(part), self.popularity_cv2
        return Machine(
            arch=arch,
            layout=layout,
            precision=self.precision.slice(part),
            placement=self.placement.slice(part),
            links=self.links.slice(part),
            rates=self.rates.slice(part),
            matrices=rank_matrices(arch, layout),
            popularity_cv2=skew if skew.shape[0] == 1 else skew[part],
            backend=self.backend.slice(part),
        )

    @cached_property
    def gemms(self) -> tuple[Gemm, ...]:
        """`2 m n k` FLOPs; weights, inputs and outputs through HBM once."""
        return tuple(self._gemm(m) for m in self.matrices if m.multiplied)

    @cached_property
    def gemm_totals(self) -> dict[bool, GemmTotals]:
        """Of the GEMMs over sampled tokens, which the head has (True), and of those over all tokens (False)."""
        layers = layers_of(self.arch)
        sums: dict[bool, tuple[Floats, Floats, Floats]] = dict.fromkeys((True, False), (np.zeros(1),) * 3)
        for gemm in self.gemms:
            head, count = gemm.layer == HEAD_STAGE, layers[gemm.layer]
            peak = self.rates.of_matrix(gemm.layer, gemm.name, gemm.weights).peak_flops_per_s
            math_s, weights, rows = sums[head]
            math_s = math_s + gemm.flops_per_row * (count / peak)
            sums[head] = math_s, weights + gemm.weight_bytes * count, rows + gemm.row_bytes * count
        return {
            head: GemmTotals(math_s_per_row=math_s, weight_bytes=weights, row_bytes=rows)
            for head, (math_s, weights, rows) in sums.items()
        }

    @cached_property
    def tp_reduce(self) -> Law:
        """All-reduce over the ranks of a tensor-parallel group."""
        return all_reduce(self.links, self.layout.attn_tp, self.placement.tp_domains)

    @cached_property
    def experts(self) -> dict[str, ExpertGemms]:
        """Of the routed experts, by group of layers."""
        return {group.name: self._experts(group.name, block) for group, block in self.arch.experts}

    def _experts(self, layer: str, experts: Experts) -> ExpertGemms:
        width, rate = experts.expert_input(self.arch.hidden_size), self.rates.of_matrix(layer, EXPERTS, EXPERTS)
        inner = experts.projections * experts.width / self.layout.moe_tp
        weights = np.asarray(inner * width)
        return ExpertGemms(
            rows_per_token=np.asarray(experts.routed / self.layout.moe_ep),
            picked_frac=np.asarray(experts.routed / experts.experts),
            held=np.asarray(experts.per_rank(self.layout)),
            flops_per_row=2.0 * weights,
            weight_bytes=weights * self.precision.bytes_at(layer, EXPERTS, EXPERTS),
            row_bytes=np.asarray((rate.row_passes * width + inner) * self.arch.activation_bytes),
            rate=rate,
        )

    @cached_property
    def exchanges(self) -> dict[str, Exchange]:
        """Of the routed experts' tokens, by group of layers."""
        return {group.name: self._exchange(group.name, block) for group, block in self.arch.experts}

    def _exchange(self, layer: str, experts: Experts) -> Exchange:
        token_bytes = np.asarray(experts.expert_input(self.arch.hidden_size) * self.arch.activation_bytes)
        # fp8 experts take fp8 activations, so tokens are dispatched in fp8 and combined in bf16 (DeepEP)
        stored = self.precision.bytes_at(layer, EXPERTS, EXPERTS)
        narrow = np.where(stored < 1.5, 0.5, 1.0)
        picked = np.asarray(experts.routed)
        narrowed = token_bytes * narrow
        return Exchange.of(self.links, self.layout, self.placement, picked, token_bytes, narrowed, self.backend)

    @cached_property
    def send(self) -> Law:
        """From a stage to the next."""
        return pipeline_send(self.links, self.layout, self.placement)

    def _gemm(self, m: RankMatrix) -> Gemm:
        weights = np.asarray(m.n * m.k)
        row_bytes = np.asarray((m.n + m.k) * self.arch.activation_bytes)
        present = None if weights.all() else np.asarray(weights > 0.0, dtype=np.float64)
        if present is not None:
            row_bytes = row_bytes * present
        weight_bytes, flops = weights * self.precision.bytes_of(m), 2.0 * weights
        law = RowLaw.of(self.rates.of_matrix(m.layer, m.name, m.weights), flops, weight_bytes, row_bytes)
        return Gemm(
            name=m.name,
            layer=m.layer,
            weights=m.weights,
            flops_per_row=flops,
            weight_bytes=weight_bytes,
            row_bytes=row_bytes,
            law=law if present is None else law.at(present),
        )


def layers_of(arch: ArchColumns) -> dict[str, Floats]:
    """Layers of each group of a whole model, and its one head, by name."""
    return {g.name: g.layers for g in arch.groups} | {HEAD_STAGE: np.ones(1)}
