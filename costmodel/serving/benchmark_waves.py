"""What a benchmark does to its own figures by beginning with all its requests at once.

The first prompts queue together. They leave the queue one after the other, so that the next requests come at the
distances in which they were served, and outputs of different lengths spread them further from round to round. Where all
requests have the same lengths, they never part: whole waves where decoding waits for all prompts, small groups where
prompts ride on decode steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.serving.settle import Plant
from costmodel.serving.step_mix import StepMix, chunk_work
from costmodel.step.pipeline_pass import step_pass
from costmodel.step.step_work import decode_work, joint_work

LENGTHS_WIDTH = 0.2
"""Width of the output lengths of a benchmark that varies them, over the longest: uniform in [0.8, 1.0] of it."""
BUNCHED_MOST = 0.6
"""Utilisation in front of prefill while requests are still bunched, at most, as they keep their distances: simulated.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waves:
    """What the benchmark's beginning adds. Arrays of shape `(num_plans,)`; seconds."""

    queue_s: Floats
    """Queue in front of prefill, mean over all requests of the benchmark."""
    residence_s: Floats
    """Decoding, mean over all requests of the benchmark."""


def waves(  # one for each time that a wave is made of
    plant: Plant,
    mix: StepMix,
    *,
    before_decode_s: Floats,
    residence_s: Floats,
    undisturbed_s: Floats,
    queue_s: Floats,
) -> Waves:
    """A benchmark's mean queue and decoding, of which the other figures are those of its steady state."""
    engine, load, share = plant.engine, plant.load, plant.share
    mixes, same = engine.mixes > 0.0, load.same_lengths > 0.0
    full = np.clip(mix.left / mix.chunk, 1.0, np.maximum(share.running / share.ranks, 1.0))
    prompts = chunk_work(share, mix.chunks, full, full * share.ranks)
    beside = decode_work(0.5 * mix.batch, share.context, load.step_tokens)
    full_step_s = step_pass(
        plant.machine, plant.stages, engine, joint_work(prompts, beside, beside=engine.mixes)
    ).stage_s
    served_s = mix.chunks * full_step_s / (full * share.ranks)

    # prompts of a step end together, so that the mean of n steps is (n + 1) / 2
    steps = np.maximum(share.running / (full * share.ranks), 1.0)
    wave_s = np.maximum(0.5 * mix.chunks * full_step_s * (steps + 1.0) - mix.own_prefill_s, 0.0)
    stalled_s = wave_s * np.where(mixes, np.maximum(1.0 - mix.base_s / full_step_s, 0.0), 1.0)

    # later rounds come in a window that lengths have widened: half of the rounds have passed on average
    spent_s = served_s * share.running
    window_s = np.sqrt(spent_s**2 + 0.5 * load.waves * (LENGTHS_WIDTH * residence_s) ** 2)
    use = np.minimum(spent_s / np.minimum(window_s, residence_s + before_decode_s), BUNCHED_MOST)
    others = (share.running - 1.0) / share.running
    later_s = np.maximum(queue_s, np.where(same, 0.0, others * served_s * use / (2.0 * (1.0 - use))))
    later_s = later_s + np.where(same & mixes, 0.5 * (np.minimum(share.running, engine.together) - 1.0) * served_s, 0.0)

    first_frac = np.where(same & ~mixes, 1.0, 1.0 / np.maximum(load.waves, 1.0))
    asked = load.waves > 0.0
    return Waves(
        queue_s=np.where(asked, later_s + first_frac * (wave_s - later_s), queue_s),
        residence_s=np.where(asked, residence_s + first_frac * (undisturbed_s + stalled_s - residence_s), residence_s),
    )
