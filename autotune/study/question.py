"""What a study asks, resolved: SI units, nothing left open, nothing to validate any more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from autotune.metrics import GOODPUT
from autotune.study.operation import RetunePolicy, Switch
from autotune.study.resilience import Resilience
from autotune.study.sections import Baseline, Constraints, EngineOptions, Objective, Search
from autotune.study.wider_search import WiderSearch
from autotune.study.workload import Workload
from costmodel.arch import Arch
from costmodel.calibration.profile import Profile
from costmodel.hardware import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One question: which plan serves this model on this cluster best. From `load_study`."""

    name: str
    path: Path
    """The file, for messages: nothing is read from it any more."""
    engine: str
    """`vllm`, `sglang`, `trtllm` or `any`."""
    engine_version: str | None
    arch: Arch
    cluster: Cluster
    workload: Workload
    constraints: Constraints
    objective: Objective
    search: Search
    baseline: Baseline | None
    engine_options: EngineOptions
    axes: WiderSearch
    switch: Switch
    retune: RetunePolicy
    resilience: Resilience
    calibration: Profile | None
    """The user's own calibration."""
    assumptions: tuple[str, ...]
    """What the study, the model and the GPU left open and how it was filled in, in plain sentences."""
    operation_assumptions: tuple[str, ...] = ()
    """The same of `switch` and `retune`, which say nothing about how plans are ranked."""
    resilience_assumptions: tuple[str, ...] = ()
    """The same of `resilience`."""
    overrides: tuple[str, ...] = ()
    """The `--set` settings that made it of its file, as they were given."""

    @property
    def limits_single_requests(self) -> bool:
        """Whether `ttft_ms`, `tpot_ms` and `e2e_ms` are limits that single requests keep or not, and none on means."""
        return self.constraints.attainment_frac is not None or self.objective.metric == GOODPUT

    @property
    def means_of_requests(self) -> bool:
        """Whether limits on mean latencies are held against the requests of a log, simulated for its percentiles.

        Otherwise they are held against the closed form, which of a log knows the rate of its fullest bin alone.
        """
        return (
            self.workload.recorded is not None and self.constraints.has_percentiles and not self.limits_single_requests
        )

    def without_load(self) -> Self:
        """The same study with neither a request rate nor requests in flight: as much comes as a plan takes."""
        return replace(self, workload=replace(self.workload, concurrency=None, request_rate_per_s=None))
