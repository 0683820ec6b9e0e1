"""Prompts that a server's options hold back before the scheduler sees them.

SGLang looks for new requests every `scheduler_recv_interval` steps: half of it is waited on average. TensorRT-LLM with
`batch_wait_timeout_iters` lets a first waiting prompt wait for others: it waits for all of it, those that come
meanwhile for half of it on average. Either way whoever is held back is prefilled together with the others.
"""

from __future__ import annotations

import numpy as np

from costmodel.plan.columns import Floats


def held_back(poll_steps: Floats, hold_steps: Floats, per_step: Floats) -> tuple[Floats, Floats]:
    """Mean steps waited, and mean number of other prompts that are let in together; shape `(num_plans,)`.

    Args:
        poll_steps: steps between looks, 0 for every step.
        hold_steps: steps that a first waiting prompt waits, 0 for none.
        per_step: prompts that arrive per step.
    """
    come = hold_steps * per_step
    waited = 0.5 * np.maximum(poll_steps, 0.0) + hold_steps * (1.0 + 0.5 * come) / (1.0 + come)
    return waited, (poll_steps + hold_steps) * per_step
