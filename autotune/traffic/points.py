"""A few weighted (prompt, output) lengths that stand for all requests: the cost model is evaluated at each of them.

Requests are cut into groups by the quantiles of their prompts, each group by the quantiles of its outputs; a point is a
group's mean lengths with its share of the requests. So weights sum to one and mean tokens are kept exactly.
"""

from __future__ import annotations

import numpy as np

from costmodel.plan.columns import Floats, Ints
from costmodel.serving.requests import RequestKind

PROMPT_CUTS = (0.3, 0.6, 0.85)
"""Groups of prompts; finer towards the long ones, whose prefill costs most."""
OUTPUT_CUTS = (0.6,)
"""Groups of outputs within one of prompts."""


def representative_points(
    prompt_tokens: Floats,
    output_tokens: Floats,
    requests: Floats,
    *,
    prompt_cuts: tuple[float, ...] = PROMPT_CUTS,
    output_cuts: tuple[float, ...] = OUTPUT_CUTS,
) -> tuple[RequestKind, ...]:
    """Points of requests, by rising prompt and output length; at most `(cuts + 1)` of each, multiplied.

    Args:
        prompt_tokens: shape `(num_pairs,)`.
        output_tokens: the same.
        requests: how many each pair stands for, the same shape.
        prompt_cuts: quantiles that part the prompts.
        output_cuts: quantiles that part the outputs of each group of prompts.
    """
    total = float(requests.sum())
    out: list[RequestKind] = []
    by_prompt = _groups(prompt_tokens, output_tokens, requests, prompt_cuts)
    for group in by_prompt:
        for part in _groups(output_tokens[group], prompt_tokens[group], requests[group], output_cuts):
            index = group[part]
            weight = float(requests[index].sum())
            out.append(
                RequestKind(
                    isl=float(prompt_tokens[index] @ requests[index]) / weight,
                    osl=float(output_tokens[index] @ requests[index]) / weight,
                    weight=weight / total,
                )
            )
    return tuple(out)


def _groups(values: Floats, others: Floats, requests: Floats, cuts: tuple[float, ...]) -> list[Ints]:
    """Indices of each group by rising value; equal values stay in one, `others` only orders what is summed."""
    order = np.lexsort((others, values))
    share = (np.cumsum(requests[order]) - 0.5 * requests[order]) / requests.sum()
    ordered = values[order]
    # a run of equal values belongs to where its middle lies
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], ordered.size]
    middle = np.repeat(0.5 * (share[starts] + share[ends - 1]), ends - starts)
    part = np.searchsorted(np.array(cuts), middle)
    return [order[part == i] for i in range(len(cuts) + 1) if np.any(part == i)]
