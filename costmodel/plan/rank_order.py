"""Which rank of a replica holds which place of which pipeline stage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from costmodel.engine import EngineTraits
from costmodel.plan.layout import Layout


def stage_ranks(layout: Layout, engine: EngineTraits) -> NDArray[np.int64]:
    """Ranks of one replica by stage and place in the stage, shape `(pp, width)`.

    Places of a stage are numbered attention-DP, CP, TP from slowest to fastest in either order of ranks.
    """
    ranks = np.arange(layout.pp * layout.width)
    if not engine.stages_strided:
        return ranks.reshape(layout.pp, layout.width)
    blocks = ranks.reshape(layout.attn_dp, layout.pp, layout.attn_cp * layout.attn_tp)
    return blocks.transpose(1, 0, 2).reshape(layout.pp, layout.width)
