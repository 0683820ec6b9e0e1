"""What measured deployments of two pools say about the formulas: few figures, fitted on such deployments alone.

Runs of one node that prefills and decodes say nothing here: no prompt interrupts a pool that decodes, and a pool that
prefills does nothing else. `python -m tools.fit_calibration.pools` fits the data file and states how well it predicts
deployments, GPUs, models and engines that were left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from costmodel.calibration.data_files import BORROWED_FROM, DATA
from costmodel.calibration.load import Cell
from costmodel.calibration.measured_cells import arch_key
from costmodel.dtypes import storage
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats

FILE = "pools.json"
DECODE_FEATURES = ("one", "plain_tp", "tp_ep_on_hopper", "crosses_domains", "gathers", "batch_dp", "batch_tp")
"""Of a decode step: a constant; attention and experts both on tensor parallelism, on Blackwell; attention on tensor
parallelism with whole experts on each rank, on Hopper; stages over several scale-up domains; attention-DP within a
domain that is one host, in which engines gather all tokens through NCCL and no kernel stores them straight into the
memory of other ranks; and the doublings of the sequences per rank, with attention-DP and without."""
USUAL_BATCH, MOST_BATCH_LOG = 32.0, 1.5
"""Sequences per rank at which the batch features are 0, and how far they go on (in powers of `USUAL_BATCH`)."""
LATENCIES = ("ttft", "tpot", "throughput")
DECODE_CARRIED, PREFILL_CARRIED = 0.7, 0.25
"""Shares of what was learnt of decode steps and of prefill passes that hold for models not measured. With one of the
two measured models left out, TTFT was off by 55 % so when they were chosen (46 % now), 86 % with all that was learnt of
passes and 53 % with the formulas alone; TPOT by 11.5 %, and 12.7 % with half of what was learnt of steps: much of what
a model shows is its own."""
REACHES = ("gpu", "model", "engine")
"""What of a plan may lie beyond the measured deployments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFit:
    """What an engine adds to the way from one pool to the other."""

    handover_steps: float
    """Decode steps from the end of a prompt's prefill until the client has its first token, beside the transfer."""
    prefill_attn_dp: float
    """Log of a prefill pass over the formula's, of ranks of attention-DP, beside what all layouts share."""
    prefill_fp4: float
    """What such ranks add with experts in FP4, whose GEMMs are so short that what lies between them counts."""
    decode: float
    """Log of a decode step over the formula's, beside what all engines share."""
    decode_fp8: float
    """What it adds with experts in FP8, for which each engine has kernels of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCalibration:
    """Figures of `pools.json`. Logs are of measured / formula."""

    decode_log: Floats
    """Shape `(len(DECODE_FEATURES),)`."""
    crossing_engines: tuple[str, ...]
    """Engines whose decode workers were measured over several scale-up domains: what `crosses_domains` says is theirs,
    as each has an exchange of its own there; of others the formula stands."""
    prefill_log: float
    """Of a prefill pass, whatever the layout."""
    prefill_moe_tp: float
    """Log of what experts that are cut over ranks take of it, over the formula's: no fullest rank is waited for there,
    and kernels for narrow shards do better with many prompts than the formula says."""
    opening_queue: float
    """Mean queue of a benchmark's opening burst and of the rounds that stay bunched, over that of the burst alone."""
    engines: Mapping[str, EngineFit]
    """By name of the calibration (`EngineTraits.calibration`); `other` stands for those that were not measured."""
    log_sd: Mapping[str, float]
    """By latency of `LATENCIES`: standard deviation of log(measured / estimate) of a deployment that was left out."""
    further_log_sd: Mapping[str, Mapping[str, float]]
    """By reach of `REACHES` and latency: what one that was not measured adds."""
    measured: Mapping[str, tuple[str, ...]]
    """By reach: GPUs, models (`arch_key`) and engines that were measured."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> PoolCalibration:
        """Of the data file's content."""
        return cls(
            decode_log=np.array([document["decode_log"][name] for name in DECODE_FEATURES]),
            crossing_engines=tuple(document["crossing_engines"]),
            prefill_log=document["prefill_log"],
            prefill_moe_tp=document["prefill_moe_tp"],
            opening_queue=document["opening_queue"],
            engines={name: EngineFit(**values) for name, values in document["engines"].items()},
            log_sd=document["log_sd"],
            further_log_sd=document["further_log_sd"],
            measured={name: tuple(values) for name, values in document["measured"].items()},
        )

    def engine(self, name: str) -> EngineFit:
        """Of a calibration, or of engines at large where it was not measured."""
        return self.engines.get(name, self.engines["other"])


@lru_cache(maxsize=1)
def pool_calibration() -> PoolCalibration:
    """The shipped figures."""
    return PoolCalibration.read(json.loads((DATA / FILE).read_text(encoding="utf-8")))


def decode_features(batch: PlanBatch, sequences_per_rank: Floats, crossing: Collection[str] | None = None) -> Floats:
    """Features of decode steps, shape `(len(DECODE_FEATURES), num_plans)`.

    `crossing`: engines that `crosses_domains` is marked of; None: all.
    """
    layout, domains = batch.layout, batch.placement.stage_domains
    measured = _by_cell(batch, lambda cell: float(crossing is None or cell[2].calibration in crossing))
    blackwell = _by_cell(batch, lambda cell: float(BORROWED_FROM[cell[1].gpu.generation] == "blackwell"))
    in_host = _by_cell(batch, lambda cell: float(cell[1].domain_gpus <= cell[1].gpus_per_node))
    dp, plain_tp = layout.attn_dp > 1.0, (layout.attn_dp == 1.0) & (layout.moe_ep == 1.0)
    size = np.broadcast_shapes(dp.shape, sequences_per_rank.shape, domains.shape)
    log = np.log(np.maximum(sequences_per_rank, 1.0) / USUAL_BATCH) / np.log(USUAL_BATCH)
    log = np.minimum(log, MOST_BATCH_LOG)
    tp_ep, gathers = (layout.attn_dp == 1.0) & (layout.moe_ep > 1.0), dp * in_host * (domains == 1.0)
    rows = (
        1.0,
        plain_tp * blackwell,
        tp_ep * (1.0 - blackwell),
        (domains > 1.0) * measured,
        gathers,
        log * dp,
        log * ~dp,
    )
    return np.stack([np.broadcast_to(np.asarray(row, dtype=np.float64), size) for row in rows])


def _prefill_ranks_log(engine: EngineFit, cell: Cell) -> float:
    """Log of a pass of attention-DP ranks over the formula's, beside what all layouts share."""
    return engine.prefill_attn_dp + (engine.prefill_fp4 if experts_compute(cell) == "fp4" else 0.0)


def _decode_log(engine: EngineFit, cell: Cell) -> float:
    """Log of a decode step over the formula's that an engine adds."""
    return engine.decode + (engine.decode_fp8 if experts_compute(cell) == "fp8" else 0.0)


def experts_compute(cell: Cell) -> str:
    """What the experts of a plan compute in, by name of the data type."""
    return storage(cell[0].dtypes.experts).compute


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFactors:
    """The calibration for the plans of a batch. Arrays of shape `(num_plans,)` or `(1,)`."""

    calibration: PoolCalibration
    applies: bool
    """False where the formulas alone are asked for: every factor is 1, and nothing uncertain."""
    prefill: Floats
    """A prefill pass over the formula's, beside `prefill_experts`."""
    prefill_experts: Floats
    """The part of a prefill pass in which experts run over the formula's."""
    handover_steps: Floats
    decode_carried: Floats
    """Share of `PoolCalibration.decode_log` that holds: 1 of models that were measured."""
    decode_engine: Floats
    """Log that the engine adds to a decode step."""
    ttft_log_sd: Floats
    tpot_log_sd: Floats
    throughput_log_sd: Floats

    @classmethod
    def of(cls, batch: PlanBatch, calibration: PoolCalibration | None = None) -> PoolFactors:
        """Of plans; of the shipped calibration where none is given."""
        found, applies = calibration or pool_calibration(), batch.residual is not None
        figures = cls.figures(batch, found)
        if not applies:
            figures["prefill"] = figures["prefill_experts"] = np.ones(1)

        def spread(name: str) -> Floats:
            return _by_cell(batch, lambda cell: _log_sd(found, cell, name)) if applies else np.zeros(1)

        return cls(
            applies=applies,
            ttft_log_sd=spread("ttft"),
            tpot_log_sd=spread("tpot"),
            throughput_log_sd=spread("throughput"),
            **figures,
        )

    @classmethod
    def figures(cls, batch: PlanBatch, found: PoolCalibration) -> dict[str, Any]:
        """What a calibration makes of plans, by field; not how sure it is."""
        ranks = _by_cell(batch, lambda cell: _prefill_ranks_log(found.engine(cell[2].calibration), cell))
        known = _by_cell(batch, lambda cell: float(arch_key(cell[0]) in found.measured["model"]))
        layout = batch.layout
        carried = np.where(known > 0.0, 1.0, PREFILL_CARRIED)
        passes = found.prefill_log + ranks * (layout.attn_dp > 1.0)
        steps = _by_cell(batch, lambda cell: found.engine(cell[2].calibration).handover_steps)
        return {
            "calibration": found,
            "prefill": np.exp(passes * carried),
            "prefill_experts": np.exp(found.prefill_moe_tp * (layout.moe_tp > 1.0) * carried),
            "handover_steps": steps,
            "decode_engine": _by_cell(batch, lambda cell: _decode_log(found.engine(cell[2].calibration), cell)),
            "decode_carried": np.where(known > 0.0, 1.0, DECODE_CARRIED),
        }

    def decode(self, batch: PlanBatch, sequences_per_rank: Floats) -> Floats:
        """A decode step over the formula's."""
        if not self.applies:
            return np.ones(1)
        phi = decode_features(batch, sequences_per_rank, self.calibration.crossing_engines)
        learnt = np.asarray(sum(w * row for w, row in zip(self.calibration.decode_log, phi, strict=True)))
        return np.exp(self.decode_carried * (learnt + self.decode_engine))


def _log_sd(found: PoolCalibration, cell: Cell, name: str) -> float:
    arch, cluster, engine, _ = cell
    here = {"gpu": cluster.gpu.name, "model": arch_key(arch), "engine": engine.name}
    beyond = (found.further_log_sd[reach][name] for reach in REACHES if here[reach] not in found.measured[reach])
    return float(np.sqrt(found.log_sd[name] ** 2 + sum(sd**2 for sd in beyond)))


def _by_cell(batch: PlanBatch, value: Callable[[Cell], float]) -> Floats:
    values = np.array([value(cell) for cell in batch.cells])
    return values if values.size == 1 else values[batch.cell_index]
