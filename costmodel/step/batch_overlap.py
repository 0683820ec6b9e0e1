"""Two-batch overlap: a pass as two batches, the exchange of one's tokens with experts behind the other's computation.

Each batch runs every kernel on half of the tokens, so that weights are read and collectives started twice. In a layer
the exchange of both batches and the computation of both take turns: what of the one is longer than the other stays
visible. That is what schedules such as DeepSeek's (github.com/deepseek-ai/profile-data) come to where no phase is
longer than what lies beside it. The processors that communication kernels take from the others are not counted.
"""

from __future__ import annotations

import numpy as np

from costmodel.plan.columns import Floats, LayoutColumns
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
