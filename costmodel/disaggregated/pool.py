"""What pools of both roles have in common: plans of one role, the links between pools, and memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.kv_transfer import TransferLink, sequence_bytes_per_rank
from costmodel.disaggregated.pool_calibration import PoolFactors
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.step.memory import Memory, plan_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Plans of one role, prepared for any operating point. From `prefill_pool` and `decode_pool`."""

    batch: PlanBatch
    load: Load
    link: TransferLink
    prompt_bytes: Floats
    wire_s: Floats
    longest_prompt: Floats
    memory_fraction: Floats
    factors: PoolFactors
    """What measured pools say about the formulas."""
    length_cv2: float
    """Squared coefficient of variation of prompt lengths."""

    @property
    def links_per_s(self) -> Floats:
        """Requests per second whose caches the links of all replicas can carry, those that bring none included."""
        layout = self.batch.layout
        return np.asarray(layout.replicas * layout.attn_dp / np.maximum(self.link.handed_frac * self.wire_s, 1e-12))

    def _memory(self, sequences_per_rank: Floats, *, outputs: Floats) -> Memory:
        batch, load = self.batch, self.load
        return plan_memory(
            arch=batch.arch,
            layout=batch.layout,
            matrices=batch.matrices,
            precision=batch.precision,
            cluster=batch.columns.cluster,
            stages=batch.stages,
            backend=batch.backend,
            batched_tokens=load.batched_tokens,
            sequences_per_rank=np.minimum(sequences_per_rank, load.max_num_seqs),
            mean_tokens=load.isl + outputs * np.where(batch.reserves_whole_output > 0, 1.0, 0.5),
            longest_tokens=self.longest_prompt + outputs,
            memory_fraction=self.memory_fraction,
            fraction_is_of_free=batch.fraction_is_of_free,
            cache=batch.cache,
        )


def prompt_bytes(batch: PlanBatch, load: Load, link: TransferLink) -> Floats:
    """Cache that travels, of one request whose cache does, on the rank that holds most of it."""
    tokens = load.isl if link.handed_isl is None else np.array([link.handed_isl])
    return sequence_bytes_per_rank(batch.arch, batch.layout, batch.precision, batch.stages, tokens, batch.cache)
