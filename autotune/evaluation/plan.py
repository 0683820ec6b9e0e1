"""The plan that is evaluated, prepared once: its row of the cost model, its load, its stages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.plan.columns import Floats
from costmodel.plan.stages import StageTable
from costmodel.serving.steady_state import SteadyState
from costmodel.step.memory import Memory
from costmodel.step.pipeline_pass import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedPlan:
    """One plan with its knobs, ready to be asked."""

    study: Study
    candidate: Candidate
    result: PlanResult
    grid: KnobGrid
    """Of this plan alone."""
    state: SteadyState
    """What it settles into at its number in flight, from the formulas alone."""

    @classmethod
    def of(cls, study: Study, candidate: Candidate, result: PlanResult) -> EvaluatedPlan:
        """Prepare a plan that was scored under `study`."""
        grid = KnobGrid.of(study, [Variant.of(result)], [result.knobs.max_num_batched_tokens])
        state = grid.steady(np.array([float(result.knobs.concurrency)]))
        return cls(study=study, candidate=candidate, result=result, grid=grid, state=state)

    @property
    def concurrency(self) -> Floats:
        """Requests in flight over all replicas, shape `(1,)`."""
        return np.array([float(self.result.knobs.concurrency)])

    def stage_memory(self) -> Memory:
        """Memory of a rank of every stage, first to last: arrays of shape `(pp,)`."""
        batch = self.grid.batch.take(np.zeros(self.candidate.layout.pp, dtype=np.int64))
        own = replace(batch, stages=self._stages())
        return own.memory(
            self.grid.load(self.concurrency),
            longest_prompt=np.array([float(self.study.workload.longest_prompt)]),
            memory_fraction=self.grid.bounds()["memory_fraction"],
        )

    def stage_s(self, step: Pass) -> list[float]:
        """Seconds of a pass on every stage, first to last."""
        return [float(s) for s in np.atleast_1d(step.on_stages(self._stages()))]

    def fits_longest(self, prompt_tokens: float) -> bool:
        """Whether one request with a prompt of this length has KV room."""
        held = self.grid.batch.memory(
            self.grid.load(self.concurrency),
            longest_prompt=np.array([prompt_tokens]),
            memory_fraction=self.grid.bounds()["memory_fraction"],
        )
        return bool(held.kv_room_bytes[0] >= held.kv_bytes_longest[0])

    def _stages(self) -> StageTable:
        arch = self.grid.batch.cells[0][0]
        return StageTable.each(arch, self.candidate.layout)
