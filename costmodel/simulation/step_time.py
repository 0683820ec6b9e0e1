"""Seconds of a step of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from costmodel.simulation.state import Cell
from costmodel.simulation.step_table import StepTable


def step_s(table: StepTable, cells: Sequence[Cell], *, decodes: bool, through: bool = False) -> float:
    """A step of the prompt tokens that the cells hold, and (`decodes`) of their decoding sequences; 0 without either.

    On the slowest stage, or `through` all of them.
    """
    if len(cells) == 1:
        sequences = cells[0].decoding if decodes else 0
        busiest = int(sequences * table.step_tokens) + cells[0].tokens
    else:
        sequences = max(cell.decoding for cell in cells) if decodes else 0
        busiest = max(int(cell.decoding * table.step_tokens) * decodes + cell.tokens for cell in cells)
    if busiest == 0:
        return 0.0
    seconds = kernels_s(table, cells, decodes=decodes, through=through)
    prompts = any(cell.tokens for cell in cells)
    if table.draft_frac and sequences:
        beside = [Cell(decoding=cell.decoding, context=cell.context) for cell in cells] if prompts else cells
        seconds += table.draft_frac * kernels_s(table, beside, decodes=True, through=through)
    part = table.through if through else table.slowest
    if prompts and busiest > table.capture_tokens:
        seconds = max(seconds, part.floor_s)
    seconds = max(seconds, table.prepared_s(part, sequences))
    return seconds + table.step_s + table.sequence_s * sequences


class Pace(NamedTuple):
    """Steps of decoding alone that follow each other."""

    first_s: float
    """The first of them."""
    slope_s: float
    """By how much each further one is longer."""
    straight: float
    """Steps for which that holds; a fraction."""


def decode_pace(table: StepTable, cells: Sequence[Cell], *, through: bool = False) -> Pace:
    """Steps of decoding alone, of cells that have no prompt tokens."""
    if len(cells) > 1:
        later = [Cell(decoding=c.decoding, context=c.context + c.decoding * table.accepted_tokens) for c in cells]
        first = step_s(table, cells, decodes=True, through=through)
        slope = step_s(table, later, decodes=True, through=through) - first
        return Pace(first, slope, _until_bend(table, cells, later))
    # the same for one attention rank, where most of a simulation's time goes
    part, cell, drafted = table.through if through else table.slowest, cells[0], 1.0 + table.draft_frac
    sequences = cell.decoding
    if not sequences:
        return Pace(0.0, 0.0, inf)
    tokens, mean, accepted = int(sequences * table.step_tokens), cell.context / sequences, table.accepted_tokens
    value, slope, bend = part.decode_s.piece(mean)
    seconds = drafted * (part.rest_s[tokens] + part.logits_s.at(tokens) + sequences * value)
    slope *= drafted * sequences * accepted
    straight, prepared = (bend - mean) / accepted, table.prepared_s(part, sequences)
    if seconds < prepared:
        # kernels that are quicker than the host show once the context has grown enough
        if slope > 0.0:
            straight = min(straight, (prepared - seconds) / slope)
        seconds, slope = prepared, 0.0
    return Pace(seconds + table.step_s + table.sequence_s * sequences, slope, straight)


def kernels_s(table: StepTable, cells: Sequence[Cell], *, decodes: bool, through: bool) -> float:
    """Kernels and collectives of a step, on the slowest of its attention ranks."""
    part = table.through if through else table.slowest
    slowest, busiest, group = 0.0, 0, 0
    for cell in cells:
        decoding = cell.decoding if decodes else 0
        verified = int(decoding * table.step_tokens)
        tokens = verified + cell.tokens
        if tokens == 0:
            continue
        seconds = part.rest_s[tokens] + part.logits_s.at(verified + cell.sampled)
        if decoding:
            seconds += decoding * part.decode_s.at(cell.context / decoding)
        if cell.tokens:
            seconds += cell.through_s if through else cell.attention_s
        slowest, busiest, group = max(slowest, seconds), max(busiest, tokens), group + tokens
    if part.experts_s is not None:
        slowest += part.experts_s.at(busiest, group)
    return slowest


def _until_bend(table: StepTable, cells: Sequence[Cell], later: Sequence[Cell]) -> float:
    """Steps of decoding for which their length stays linear in the context; `later` are the cells a step on."""
    most = inf
    for cell in cells:
        if cell.decoding:
            mean = cell.context / cell.decoding
            most = min(most, (table.slowest.decode_s.piece(mean)[2] - mean) / table.accepted_tokens)
    prepared = table.prepared_s(table.slowest, max(cell.decoding for cell in cells))
    drafted = 1.0 + table.draft_frac
    kernels = drafted * kernels_s(table, cells, decodes=True, through=False)
    if kernels < prepared:
        slope = drafted * kernels_s(table, later, decodes=True, through=False) - kernels
        if slope > 0.0:
            most = min(most, (prepared - kernels) / slope)
    return most
