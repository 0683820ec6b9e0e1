"""A pass of a prefill pool, as measured pools take for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.pool_calibration import PoolFactors
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.step.pipeline_pass import Pass, launch_floor_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PassParts:
    """What a prefill pass is made of, so that what measured pools say of experts leaves what launching takes.

    Pairs are of the slowest stage and of all stages.
    """

    kernels_s: tuple[Floats, Floats]
    launch_s: tuple[Floats, Floats]
    host_s: Floats
    experts_frac: Floats
    """Share of the kernels that experts run for."""

    @classmethod
    def of(cls, batch: PlanBatch, passed: Pass) -> PassParts:
        """Of a pass by the formulas."""
        groups, stages, floor = passed.step.group_s, batch.stages, passed.layer_floor_s
        return cls(
            kernels_s=(passed.kernel_s, passed.step.total_s),
            launch_s=(stages.worst(launch_floor_s(floor, stages)), 0.5 * floor * batch.arch.half_layers),
            host_s=passed.host_s,
            experts_frac=np.asarray(groups.get("experts", 0.0) / np.maximum(sum(groups.values()), 1e-12)),
        )

    def seconds(self, factors: PoolFactors) -> tuple[Floats, Floats]:
        """On the slowest stage, and through all of them."""
        kernels = 1.0 + self.experts_frac * (factors.prefill_experts - 1.0)
        both = zip(self.kernels_s, self.launch_s, strict=True)
        stage, through = (factors.prefill * (np.maximum(k * kernels, launch) + self.host_s) for k, launch in both)
        return stage, through

    def stage_s(self, factors: PoolFactors) -> Floats:
        """Until the slowest stage can take the next pass."""
        return self.seconds(factors)[0]

    def pipelined_s(self, factors: PoolFactors, count: Floats) -> Floats:
        """Seconds of `count` such passes from an empty pipeline to an empty one."""
        stage, through = self.seconds(factors)
        return through + (count - 1.0) * stage
