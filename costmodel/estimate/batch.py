"""Estimates of whole plans: the cost model's entrance.

`PlanBatch.of` gathers what does not change (architecture, hardware, calibration, placement); `evaluate` adds
a load and the runtime knobs. One plan is a batch of one; a batch may mix models, GPUs and engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from costmodel.arch import Arch
from costmodel.calibration.load import Cell, CellColumns, cell_columns, load_calibration
from costmodel.calibration.profile import Profile
from costmodel.calibration.residual import Residual, residual_columns
from costmodel.engine import SEEN_IS_KEPT, CacheRule, EngineTraits
from costmodel.estimate.error_model import Correction, Situation
from costmodel.estimate.result import Estimate, steady_estimate
from costmodel.hardware import Cluster
from costmodel.plan.cache_columns import CacheColumns
from costmodel.plan.columns import ArchColumns, Floats, Ints, LayoutColumns
from costmodel.plan.exchange_backend import ANY_BACKEND, ExchangeBackend
from costmodel.plan.layout import Layout
from costmodel.plan.matrices import RankMatrix, rank_matrices
from costmodel.plan.placement import Placement
from costmodel.plan.precision import PrecisionColumns
from costmodel.plan.stages import StageTable
from costmodel.serving.load import Load
from costmodel.serving.replica_share import admitted
from costmodel.serving.steady_state import SteadyState, lone_prompt, steady_state
from costmodel.step.expert_routing import popularity_cv2
from costmodel.step.memory import Memory, plan_memory
from costmodel.step.operators import StepTime, step_time
from costmodel.step.pipeline_pass import Pass
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork

CHUNK_PLANS = 20_000
"""Plans evaluated at once, at most: enough of them that numpy's cost per call is small beside its cost per number, few
enough that the columns of a formula fit into a processor's caches and tens of megabytes."""

LEAST_APART = 2_000
"""Plans of a kind that are worth calls of their own, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """One plan to be estimated."""

    arch: Arch
    cluster: Cluster
    engine: EngineTraits
    layout: Layout
    kv_dtype: str | None = None
    """Dtype of the cache; None is the checkpoint's."""
    engine_version: str | None = None
    """Version of the engine; None or one that was not measured: the engine's typical behaviour."""
    cache: CacheRule = SEEN_IS_KEPT
    """What its servers keep of the model's cache."""


@dataclass(frozen=True, kw_only=True)
class PlanBatch:
    """Plans, prepared for evaluation under any load."""

    size: int
    cells: tuple[Cell, ...]
    cell_index: Ints
    arch: ArchColumns
    layout: LayoutColumns
    precision: PrecisionColumns
    columns: CellColumns
    placement: Placement
    stages: StageTable
    popularity_cv2: Floats
    fraction_is_of_free: Floats
    reserves_whole_output: Floats
    backend: ExchangeBackend
    """How tokens may be sent to the ranks of their experts."""
    cache: CacheColumns
    """What servers keep of the model's cache."""
    residual: Residual | None
    """What the calibration adds to the formulas; None evaluates the formulas alone."""

    @classmethod
    def of(cls, entries: Sequence[PlanEntry], *, expert_skew: float = 0.0, profile: Profile | None = None) -> PlanBatch:
        """Prepare plans; `profile` is a user's own calibration. Raises `ValueError` for an empty sequence."""
        if not entries:
            raise ValueError("a batch must hold at least one plan, got none")
        places = zip(_places([e.arch for e in entries]), _places([e.cluster for e in entries]), entries, strict=True)
        keys: dict[tuple[int, int, EngineTraits, str | None, str | None], int] = {}
        cell_of = [keys.setdefault((a, c, e.engine, e.kv_dtype, e.engine_version), len(keys)) for a, c, e in places]
        index = np.array(cell_of, dtype=np.int64)
        firsts = [entries[cell_of.index(cell)] for cell in range(len(keys))]
        cells = [(e.arch, e.cluster, e.engine, e.kv_dtype or e.arch.kv_dtype) for e in firsts]
        calibrations = [load_calibration(e.cluster.gpu.generation, e.engine, e.engine_version) for e in firsts]
        columns = cell_columns(cells, calibrations)
        residual = residual_columns(
            [(e.arch, e.cluster.gpu, e.engine, e.engine_version) for e in firsts],
            None if profile is None else profile.values(),
        )
        archs = ArchColumns.of([e.arch for e in firsts])
        precision = PrecisionColumns.of([e.arch for e in firsts], [e.kv_dtype or e.arch.kv_dtype for e in firsts])
        of_free = np.array([float(e.engine.kv_fraction_is_of_free) for e in firsts])
        whole = np.array([float(e.engine.reserves_whole_output) for e in firsts])
        layout = LayoutColumns.of([e.layout for e in entries], [e.engine for e in entries])
        rules = [e.cache for e in entries]
        if len(firsts) > 1:
            archs, precision, of_free, whole = archs.take(index), precision.take(index), of_free[index], whole[index]
            columns = CellColumns(**{f.name: getattr(columns, f.name).take(index) for f in fields(CellColumns)})
        return cls(
            size=len(entries),
            cells=tuple(cells),
            cell_index=index,
            arch=archs,
            layout=layout,
            precision=precision,
            columns=columns,
            placement=Placement.of(layout, columns.cluster),
            stages=StageTable.of([e.arch for e in entries], [e.layout for e in entries]),
            popularity_cv2=_popularity(entries, expert_skew),
            fraction_is_of_free=of_free,
            reserves_whole_output=whole,
            backend=ANY_BACKEND,
            cache=CacheColumns.of(rules[:1] if len(set(rules)) == 1 else rules),
            residual=residual if len(firsts) == 1 else residual.take(index),
        )

    def take(self, index: Ints) -> PlanBatch:
        """Gather plans, with repetition: one entry per knob setting."""
        return self._map(lambda c: c if c.shape_is_shared and self.size > 1 else c.take(index), index, len(index))

    def _map(self, gather: Any, index: Any, size: int) -> PlanBatch:
        columns = CellColumns(**{f.name: gather(getattr(self.columns, f.name)) for f in fields(CellColumns)})
        return PlanBatch(
            size=size,
            cells=self.cells,
            cell_index=self.cell_index[index],
            arch=gather(self.arch),
            layout=gather(self.layout),
            precision=gather(self.precision),
            columns=columns,
            placement=gather(self.placement),
            stages=self.stages.take(index),
            popularity_cv2=_pick(self.popularity_cv2, index),
            fraction_is_of_free=_pick(self.fraction_is_of_free, index),
            reserves_whole_output=_pick(self.reserves_whole_output, index),
            backend=gather(self.backend),
            cache=gather(self.cache),
            residual=None if self.residual is None else gather(self.residual),
        )

    @cached_property
    def matrices(self) -> tuple[RankMatrix, ...]:
        """What the ranks of these plans hold."""
        return rank_matrices(self.arch, self.layout)

    @cached_property
    def machine(self) -> Machine:
        """What every step of these plans runs on."""
        return Machine(
            arch=self.arch,
            layout=self.layout,
            precision=self.precision,
            placement=self.placement,
            links=self.columns.links,
            rates=self.columns.rates,
            matrices=self.matrices,
            popularity_cv2=self.popularity_cv2,
            backend=self.backend,
        )

    def step(self, work: StepWork, *, record: bool = False) -> StepTime:
        """Seconds of one step by operator group, from the formulas alone; `record` keeps its operators."""
        return step_time(self.machine, work, record=record)

    def steady(self, load: Load, *, longest_prompt: Floats, memory_fraction: Floats) -> SteadyState:
        """What the plans settle into under `load`, from the formulas alone; arguments as `evaluate`'s."""
        return _solve(self, load, longest_prompt, memory_fraction)[1]

    def lone_prompt(self, load: Load) -> tuple[Pass, Floats]:
        """One of the passes of a prompt of mean length with nothing beside it, and how many there are."""
        return lone_prompt(self.machine, self.stages, self.columns.engine, load, load.isl)

    def memory(self, load: Load, *, longest_prompt: Floats, memory_fraction: Floats) -> Memory:
        """Memory of the fullest GPU under `load`; arguments as `evaluate`'s."""
        return _memory(self, load, longest_prompt, memory_fraction)

    def kv_tokens(self, load: Load, *, longest_prompt: Floats, memory_fraction: Floats) -> Floats:
        """Tokens for which a rank has cache under `load`, if each takes as much as in a sequence of mean length.

        Shape `(size,)`; arguments as `evaluate`'s.
        """
        memory = _memory(self, load, longest_prompt, memory_fraction)
        return np.maximum(memory.kv_room_bytes, 0.0) / (memory.kv_bytes_per_sequence / _mean_tokens(self, load))

    def admitted(self, load: Load, *, longest_prompt: Floats, memory_fraction: Floats) -> Floats:
        """Requests that each replica's cache and seats hold under `load`, shape `(size,)`; others in flight wait.

        Arguments as `evaluate`'s.
        """
        return admitted(self.layout, load, _memory(self, load, longest_prompt, memory_fraction))

    def evaluate(
        self, load: Load, *, longest_prompt: Floats, memory_fraction: Floats, arrivals: bool = False
    ) -> Estimate:
        """Estimate every plan under `load` (columns of shape `(size,)` or `(1,)`).

        Args:
            load: what is asked of the plans.
            longest_prompt: tokens.
            memory_fraction: the engine's KV setting: of total memory or of free (`EngineTraits`).
            arrivals: whether what is in flight stands for requests that arrive whatever the server does.
        """
        pieces = _pieces(self.layout.pp, self.size)
        if len(pieces) == 1:
            return _evaluate(self, load, longest_prompt, memory_fraction, arrivals)
        out: dict[str, Any] = {}
        for index in pieces:
            # neighbours are copied faster than what is gathered
            near = index[-1] - index[0] == len(index) - 1
            part = slice(index[0], index[-1] + 1) if near else index
            piece = self._map(lambda c, p=part: c.slice(p), part, len(index))
            bounds = _pick(longest_prompt, part), _pick(memory_fraction, part)
            done = _evaluate(piece, load.slice(part), *bounds, arrivals)
            for f in fields(Estimate):
                values = getattr(done, f.name)
                if f.name not in out:
                    out[f.name] = np.empty((*values.shape[:-1], self.size), dtype=values.dtype)
                out[f.name][..., part] = values
        return Estimate(**out)


def _pieces(stages: Floats, size: int) -> list[Ints]:
    """Places of plans that are evaluated together, each in one piece and in its order there.

    Plans with pipelines apart from those without, where both are many: what pipelines alone have is then left out of
    the others' formulas, which says nothing of their values.
    """
    piped = np.broadcast_to(stages > 1.0, size)
    kinds = [np.flatnonzero(piped), np.flatnonzero(~piped)]
    if min(map(len, kinds)) < LEAST_APART:
        kinds = [np.arange(size)]
    return [part for kind in kinds for part in np.array_split(kind, -(-len(kind) // CHUNK_PLANS))]


def _places(values: Sequence[object]) -> list[int]:
    """The place of each value among the distinct ones, in the order of their first appearance.

    By equality, for what cannot be hashed; equal values mostly are one object, which is looked at first.
    """
    known: list[object] = []
    out = []
    for value in values:
        place = next((i for i, other in enumerate(known) if other is value), None)
        if place is None:
            place = next((i for i, other in enumerate(known) if other == value), len(known))
            if place == len(known):
                known.append(value)
        out.append(place)
    return out


def _pick(values: Floats, index: Any) -> Floats:
    return values if values.shape[0] == 1 else values[index]


def _popularity(entries: Sequence[PlanEntry], skew: float) -> Floats:
    if skew == 0.0:
        return np.zeros(1)
    known: dict[tuple[int, int], float] = {}
    out = np.zeros(len(entries))
    for i, e in enumerate(entries):
        key = (e.arch.num_experts, e.layout.redundant_experts)
        if key not in known:
            known[key] = popularity_cv2(max(key[0], 1), skew, key[1])
        out[i] = known[key]
    return out


def _evaluate(
    batch: PlanBatch, load: Load, longest_prompt: Floats, memory_fraction: Floats, arrivals: bool
) -> Estimate:
    memory, state = _solve(batch, load, longest_prompt, memory_fraction)
    situation = Situation.of(batch.layout, load.concurrency / batch.layout.replicas, load.isl, load.osl)
    correction = Correction.of(batch.residual, situation)
    return steady_estimate(batch.layout, load, memory, state, correction.of_arrivals if arrivals else correction)


def _mean_tokens(batch: PlanBatch, load: Load) -> Floats:
    """Tokens that a sequence holds cache for, mean: of its output half, unless the engine reserves all of it."""
    isl, osl = np.where(load.kv_isl > 0.0, load.kv_isl, load.isl), np.where(load.kv_osl > 0.0, load.kv_osl, load.osl)
    return np.asarray(isl + osl * np.where(batch.reserves_whole_output > 0, 1.0, 0.5))


def _memory(batch: PlanBatch, load: Load, longest_prompt: Floats, memory_fraction: Floats) -> Memory:
    wanted = np.maximum(load.concurrency / batch.layout.replicas, 1.0) / batch.layout.attn_dp
    return plan_memory(
        arch=batch.arch,
        layout=batch.layout,
        matrices=batch.matrices,
        precision=batch.precision,
        cluster=batch.columns.cluster,
        stages=batch.stages,
        backend=batch.backend,
        batched_tokens=load.batched_tokens,
        sequences_per_rank=np.minimum(wanted, load.max_num_seqs),
        mean_tokens=_mean_tokens(batch, load),
        longest_tokens=longest_prompt + load.osl,
        memory_fraction=memory_fraction,
        fraction_is_of_free=batch.fraction_is_of_free,
        cache=batch.cache,
    )


def _solve(batch: PlanBatch, load: Load, longest_prompt: Floats, memory_fraction: Floats) -> tuple[Memory, SteadyState]:
    memory = _memory(batch, load, longest_prompt, memory_fraction)
    state = steady_state(
        batch.machine,
        batch.stages,
        batch.columns.engine,
        load,
        memory,
        hbm_bytes_per_s=batch.columns.cluster.hbm_bytes_per_s,
        longest_prompt=longest_prompt,
    )
    return memory, state
