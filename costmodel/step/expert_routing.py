"""How unevenly tokens fall on experts and on the ranks that hold them."""

from __future__ import annotations

import numpy as np

from costmodel.arch.ffn import Experts
from costmodel.plan.columns import Floats, LayoutColumns


def popularity(num_experts: int, skew: float, redundant_experts: int = 0) -> Floats:
    """Mean share of tokens of each expert instance under a power law `rank ** -skew`, largest first.

    Redundant copies split the load of the hottest instances one after another, as EPLB places them.
    """
    share = np.arange(1, num_experts + 1, dtype=np.float64) ** -skew
    share /= share.sum()
    copies = np.ones(num_experts)
    for _ in range(redundant_experts):
        copies[np.argmax(share / copies)] += 1.0
    return np.sort(np.repeat(share / copies, copies.astype(np.int64)))[::-1]


def popularity_cv2(num_experts: int, skew: float, redundant_experts: int = 0) -> float:
    """Squared coefficient of variation of `popularity`: 0 where every expert is as popular as the next."""
    share = popularity(num_experts, skew, redundant_experts)
    return float(share.var() / share.mean() ** 2)


def rank_load(experts: Experts, layout: LayoutColumns, group_tokens: Floats, cv2: Floats) -> Floats:
    """Expected tokens of the fullest expert rank over the mean rank's, at least 1 and at most `moe_ep`.

    A rank's load has two independent spreads: which experts it holds (popularity, averaged over the experts of
    a rank) and which tokens come (multinomial). The largest of `n` such loads lies about
    `sqrt(2 ln n)` standard deviations above the mean (extreme value of a normal).
    """
    ranks = layout.moe_ep
    rows = group_tokens * experts.routed / ranks
    spread = cv2 / experts.per_rank(layout) + 1.0 / np.maximum(rows, 1.0)
    load = 1.0 + np.sqrt(spread * (1.0 - 1.0 / ranks) * (2.0 * np.log(ranks)))
    return np.minimum(load, ranks)
