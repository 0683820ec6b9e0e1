"""How long steps of decoding take in the quick form of a pipeline's events."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from math import inf

from costmodel.simulation.queue_inputs import QueueTables

DecodeStep = tuple[float, float, float, float, float, float, float]
"""A step of decoding, and those that follow it. Of the slowest stage: its kernels; these with what the host takes; by
how much each further step is longer; and for how many steps that holds, a fraction. Of all stages: the first three.
"""


def decode_steps(tables: QueueTables) -> Callable[[int, float], DecodeStep]:
    """What says how long a step of some sequences is that attend to so many tokens, all together.

    All that does not change from step to step is looked up here, once.
    """
    times, accepted = tables.slowest, tables.table.accepted_tokens
    kernels_s, per_context_s, prepared_s, host_s = times.kernels_s, times.per_context_s, times.prepared_s, times.host_s
    through_kernels_s, through_prepared_s = tables.through.kernels_s, tables.through.prepared_s
    line, through_line = tables.table.slowest.decode_s, tables.table.through.decode_s
    knots, values, slopes, bends = line.knots, line.values, line.slopes, [*line.knots[1:], inf]
    through_knots, through_values, through_slopes = through_line.knots, through_line.values, through_line.slopes
    bend, through_bend = knots[1], through_knots[1]

    def step(size: int, context: float) -> DecodeStep:
        mean, per_context, prepared, host = context / size, per_context_s[size], prepared_s[size], host_s[size]
        i = 0 if mean < bend else bisect_right(knots, mean) - 1
        slope = slopes[i]
        kernels = kernels_s[size] + per_context * (values[i] + slope * (mean - knots[i]))
        growth, straight = per_context * slope * accepted, (bends[i] - mean) / accepted
        i = 0 if mean < through_bend else bisect_right(through_knots, mean) - 1
        slope = through_slopes[i]
        whole = through_kernels_s[size] + per_context * (through_values[i] + slope * (mean - through_knots[i]))
        own_s, whole_s, whole_growth = kernels, whole, per_context * slope * accepted
        if kernels < prepared:
            # kernels that are quicker than the host show once the context has grown enough
            if growth > 0.0 and (prepared - kernels) / growth < straight:
                straight = (prepared - kernels) / growth
            own_s, growth = prepared, 0.0
        if whole < through_prepared_s[size]:
            whole_s, whole_growth = through_prepared_s[size], 0.0
        return kernels, own_s + host, growth, straight, whole, whole_s + host, whole_growth

    return step
