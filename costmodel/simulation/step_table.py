"""Seconds of any step of one plan, tabulated once, so that a simulation may ask for millions of them.

A step runs so many decoding sequences and so many prompt tokens on each attention rank in one forward pass. Its parts:

    rest       GEMMs, norms, all-reduces, sends: by the tokens of the busiest rank
    experts    routed experts and their exchange: by the tokens of all ranks and of the busiest one
    logits     by the tokens that are sampled
    attention  of decoding sequences: in proportion to them, linear in their mean context between knots
               of prompts: by the tokens of a chunk and those before it
    host       of the step, and per decoding sequence

Each part is evaluated by the operators themselves (`costmodel.step.operators`) on a grid, and interpolated linearly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.stages import EMBED, HEAD_STAGE
from costmodel.step.operators import step_time
from costmodel.step.pipeline_pass import front_end_s
from costmodel.step.step_work import StepWork, decode_work, prompt_work

TOKENS_RATIO = 1.2
"""From one grid point of tokens to the next: rooflines bend so little between them that lines are within a percent."""
CHUNK_RATIO = 1.3
"""From one grid point of chunk lengths to the next: causal attention grows with their square."""
PRIOR_RATIO = 4.0
"""From one grid point of the tokens before a chunk to the next; attention is linear in them but for windows."""
MOST_CONTEXT = 1 << 20
BENDS = ("window", "index_topk")
"""Fields of an attention block that are contexts at which it stops growing."""
STRAIGHT = 1e-9
"""Relative change of a slope up to which a line goes on straight."""


def geometric(most: float, ratio: float) -> Floats:
    """Whole numbers from 0 to `most`, each at least one and about `ratio` times the one before."""
    points = [0.0, 1.0]
    while points[-1] < most:
        points.append(min(max(np.floor(points[-1] * ratio), points[-1] + 1.0), most))
    return np.array(points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A piecewise linear function of one number; beyond its last knot it goes on as before it."""

    knots: Sequence[float]
    values: Sequence[float]
    slopes: Sequence[float]
    """Behind each knot."""

    @classmethod
    def through(cls, knots: Floats, values: Floats) -> Line:
        """The function with these values at these knots, ascending; knots at which it does not bend are left out."""
        slopes = np.diff(values) / np.diff(knots)
        bends = np.abs(np.diff(slopes)) > STRAIGHT * np.maximum(np.abs(slopes[1:]), np.abs(slopes[:-1]))
        kept = np.concatenate([[True], bends, [True]])
        knots, values = knots[kept], values[kept]
        slopes = np.diff(values) / np.diff(knots)
        return cls(knots=knots.tolist(), values=values.tolist(), slopes=[*slopes.tolist(), float(slopes[-1])])

    def at(self, x: float) -> float:
        """Value at `x`, which is at least the first knot."""
        i = bisect_right(self.knots, x) - 1
        return self.values[i] + self.slopes[i] * (x - self.knots[i])

    def of(self, x: Ints) -> Floats:
        """Values at `x[i]`; an array of the same shape."""
        i = np.searchsorted(np.array(self.knots), x, side="right") - 1
        knots, values, slopes = (np.array(column)[i] for column in (self.knots, self.values, self.slopes))
        return np.asarray(values + slopes * (x - knots))

    def piece(self, x: float) -> tuple[float, float, float]:
        """Value and slope at `x`, and the next knot (infinite behind the last)."""
        i = bisect_right(self.knots, x) - 1
        following = self.knots[i + 1] if i + 1 < len(self.knots) else float("inf")
        return self.values[i] + self.slopes[i] * (x - self.knots[i]), self.slopes[i], following


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A bilinear function of two numbers on a grid; beyond the grid it goes on as at its edge."""

    first: Sequence[float]
    rows: Sequence[Line]
    """For each knot of the first number, a function of the second."""

    @classmethod
    def through(cls, first: Floats, second: Floats, values: Floats) -> Plane:
        """The function with `values[i, j]` at `(first[i], second[j])`."""
        return cls(first=first.tolist(), rows=[Line.through(second, row) for row in values])

    def of(self, x: Ints, y: Ints) -> Floats:
        """Values at `(x[i], y[i])`; an array of the same shape."""
        rows = np.stack([row.of(y) for row in self.rows])
        first = np.array(self.first)
        i = np.clip(np.searchsorted(first, x, side="right"), 1, first.size - 1) - 1
        low, high = (np.take_along_axis(rows, (i + more)[None, :], axis=0)[0] for more in (0, 1))
        return low + (high - low) * (x - first[i]) / (first[i + 1] - first[i])

    def at(self, x: float, y: float) -> float:
        """Value at `(x, y)`."""
        i = min(bisect_right(self.first, x), len(self.first) - 1) - 1
        low, high = self.rows[i].at(y), self.rows[i + 1].at(y)
        return low + (high - low) * (x - self.first[i]) / (self.first[i + 1] - self.first[i])


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTable:
    """A function of the tokens of a chunk, listed for each number of them, and of those before it, linear between
    knots; beyond the last knot it goes on as before it.
    """

    before: Sequence[float]
    widths: Sequence[float]
    """From each knot to the next."""
    rows: Sequence[Sequence[float]]
    """For each knot, by the tokens of a chunk."""

    @classmethod
    def through(cls, before: Floats, tokens: Floats, values: Floats) -> ChunkTable:
        """The function with `values[i, j]` at `(before[i], tokens[j])`; `tokens` begin at 0 and end at the most."""
        every = np.arange(tokens[-1] + 1.0)
        return cls(
            before=before.tolist(),
            widths=np.diff(before).tolist(),
            rows=[np.interp(every, tokens, row).tolist() for row in values],
        )

    def at(self, before: float, tokens: int) -> float:
        """Value at a chunk of `tokens` behind `before` others."""
        i, share = self.place(before)
        low = self.rows[i][tokens]
        return low + (self.rows[i + 1][tokens] - low) * share

    def place(self, before: float) -> tuple[int, float]:
        """The last knot before so many tokens, and how far they are from it to the next, as a share."""
        i = bisect_right(self.before, before, 1, len(self.before) - 1) - 1
        return i, (before - self.before[i]) / self.widths[i]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTables:
    """The parts of a step on some of a plan's layers: its slowest stage's, or all of them. Seconds."""

    rest_s: Sequence[float]
    """By tokens of the busiest rank, a whole number; with one attention rank the experts are in it."""
    experts_s: Plane | None
    """By tokens of the busiest rank and of all ranks; None with one attention rank."""
    logits_s: Line
    decode_s: Line
    """Attention of one decoding sequence, by its context."""
    prompt_s: ChunkTable
    """Attention of a chunk, by the tokens before it and its own."""
    floor_s: float
    """What launching the kernels of these layers takes at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """Everything that the simulation of one plan asks of the cost model."""

    ranks: int
    """Attention-DP ranks: they step together."""
    stages: int
    slowest: PartTables
    """On the slowest stage: until it can take the next micro-batch."""
    through: PartTables
    """Through all stages. With one stage the same."""
    step_s: float
    """Host time of a step that the GPU waits for."""
    sequence_s: float
    """The same of each decoding sequence."""
    scheduling_sequence_s: float
    """The same of each decoding sequence."""
    capture_tokens: float
    draft_frac: float
    step_tokens: float
    """Tokens of a sequence that a decode step runs."""
    accepted_tokens: float
    """Tokens of a sequence that a decode step yields."""
    frontend_s: float
    """Before the scheduler sees a request, tokenising not counted."""
    token_s: float
    """Tokenising, per prompt token."""
    handover_steps: float

    def prepared_s(self, part: PartTables, sequences: int) -> float:
        """What the host takes at least for some layers of a step in which so many sequences of a rank decode, beside
        the GPU: to prepare them, and to launch kernels one by one where nothing is captured.
        """
        return max(self.scheduling_sequence_s * sequences, part.floor_s if self.capture_tokens < 0.0 else 0.0)


def step_table(
    batch: PlanBatch,
    *,
    most_tokens: int,
    step_tokens: float = 1.0,
    accepted_tokens: float = 1.0,
    draft_frac: float = 0.0,
) -> StepTable:
    """Tabulate the one plan of `batch` for steps of up to `most_tokens` tokens on a rank."""
    engine = batch.columns.engine
    probe = step_time(batch.machine, decode_work(np.array([64.0]), np.array([2000.0])))
    everywhere = {kind: count for kind, count in probe.layers.items() if kind in probe.per_layer_s}
    launched = float(engine.layer_launch_s[0])
    slowest = _Probes(batch, batch.stages.worst_stage(probe.per_layer_s), 1.0, step_tokens)
    stages = int(batch.layout.pp[0])
    tables = slowest.tables(most_tokens, launched)
    whole = tables
    if stages > 1:
        whole = _Probes(batch, everywhere, stages - 1.0, step_tokens).tables(most_tokens, launched)
    return StepTable(
        ranks=int(batch.layout.attn_dp[0]),
        stages=stages,
        slowest=tables,
        through=whole,
        step_s=float(engine.step_s[0]),
        sequence_s=float(engine.sequence_s[0]),
        scheduling_sequence_s=float(engine.scheduling_sequence_s[0]),
        capture_tokens=float(engine.capture_tokens[0]),
        draft_frac=draft_frac,
        step_tokens=step_tokens,
        accepted_tokens=accepted_tokens,
        frontend_s=float(front_end_s(engine, batch.arch, np.zeros(1))[0]),
        token_s=float(engine.token_s[0]),
        handover_steps=float(engine.handover_steps[0]),
    )


class _Probes:
    """Steps of one plan, asked for part by part on some of its layers."""

    def __init__(self, batch: PlanBatch, layers: Mapping[str, Floats], sends: float, step_tokens: float) -> None:
        self._machine = batch.machine
        self._arch = batch.arch
        self._layers = layers
        self._sends = sends
        self._step_tokens = np.array([step_tokens])
        self._ranks = float(batch.layout.attn_dp[0])

    def _parts(self, work: StepWork) -> dict[str, Floats]:
        """Seconds of a step by part."""
        step = step_time(self._machine, work, record=True)
        out: dict[str, Floats] = {part: np.zeros(1) for part in ("rest", "attention", "experts", "logits")}
        for operator in step.operators or ():
            count = self._layers.get(operator.layer)
            if count is not None:
                part = _PART_OF.get(operator.group, "rest")
                out[part] = out[part] + operator.seconds * count
        out["rest"] = out["rest"] + self._sends * step.send_s
        return out

    def tables(self, most_tokens: int, launched_s: float) -> PartTables:
        """All parts on their grids."""
        tokens = geometric(most_tokens, TOKENS_RATIO)
        by_tokens = self._parts(decode_work(tokens, np.zeros(1)))
        idle = self._parts(decode_work(np.zeros(1), np.zeros(1)))["attention"][0]
        rest = by_tokens["rest"] + idle + (by_tokens["experts"] if self._ranks == 1.0 else 0.0)
        every = np.arange(most_tokens + 1.0)
        contexts = np.unique(np.concatenate([geometric(MOST_CONTEXT, PRIOR_RATIO), self._bends()]))
        decode = self._parts(decode_work(np.ones(1), contexts, self._step_tokens))["attention"] - idle
        # an ordinary layer is two blocks
        layers = 0.5 * sum(float(count[0]) for name, count in self._layers.items() if name not in (EMBED, HEAD_STAGE))
        return PartTables(
            rest_s=np.interp(every, tokens, rest).tolist(),
            experts_s=None if self._ranks == 1.0 else self._experts(most_tokens),
            logits_s=Line.through(tokens, by_tokens["logits"] + np.zeros_like(tokens)),
            decode_s=Line.through(contexts, decode + np.zeros_like(contexts)),
            prompt_s=self._prompts(most_tokens, idle),
            floor_s=launched_s * layers,
        )

    def _bends(self) -> Floats:
        """Contexts at which attention changes its slope: windows, and the tokens that a sparse index keeps."""
        found = [float(np.max(getattr(group.block, name, 0.0))) for group in self._arch.attention for name in BENDS]
        return np.array([context for context in found if 0.0 < context < MOST_CONTEXT])

    def _experts(self, most_tokens: int) -> Plane:
        """By tokens of the busiest rank (rows) and tokens of all ranks."""
        busiest = geometric(most_tokens, TOKENS_RATIO * 1.5)
        group = geometric(most_tokens * self._ranks, TOKENS_RATIO * 1.5)
        first, second = (x.ravel() for x in np.meshgrid(busiest, group, indexing="ij"))
        zero = np.zeros(1)
        work = StepWork(
            prefill_tokens=np.minimum(first, second),
            prefill_tokens_group=second,
            prefill_context=zero,
            prompt_tokens=zero,
            prefill_kv_tokens=zero,
            decode_sequences=zero,
            decode_context=zero,
            sampled=zero,
        )
        seconds = self._parts(work)["experts"] + np.zeros_like(first)
        return Plane.through(busiest, group, seconds.reshape(busiest.size, group.size))

    def _prompts(self, most_tokens: int, idle: float) -> ChunkTable:
        """By tokens before a chunk (rows) and tokens of it."""
        before = geometric(MOST_CONTEXT, PRIOR_RATIO)
        chunk = geometric(most_tokens, CHUNK_RATIO)[1:]
        first, second = (x.ravel() for x in np.meshgrid(before, chunk, indexing="ij"))
        one = np.ones(1)
        work = prompt_work(prompts=one, tokens=second, cached=first, chunks=one, ranks=one)
        seconds = self._parts(work)["attention"] - idle + np.zeros_like(first)
        values = np.hstack([np.zeros((before.size, 1)), seconds.reshape(before.size, chunk.size)])
        return ChunkTable.through(before, np.concatenate([[0.0], chunk]), values)


_PART_OF = {"attention_core": "attention", "experts": "experts", "ep_exchange": "experts", "lm_head": "logits"}
"""Operator group -> part of a step; all other groups are the rest."""
