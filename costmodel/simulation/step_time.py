"""Seconds of a step of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from costmodel.simulation.state import Cell
from costmodel.simulation.step_table import StepTable


def step_s(table: StepTable, cells: Sequence[Cell], *, decodes: bool, through: bool = False) -> float:
    """A step of the prompt tokens that the cells hold, and (`decodes`) of their decoding sequences; 0 without either.

    On the slowest stage, or `through` all of them.
    """
    part = table.through if through else table.slowest
    slowest, busiest, group, sequences, prompts = 0.0, 0, 0, 0, 0
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
            prompts += cell.tokens
            seconds += cell.through_s if through else cell.attention_s
        if seconds > slowest:
            slowest = seconds
        if tokens > busiest:
            busiest = tokens
        if decoding > sequences:
            sequences = decoding
        group += tokens
    if busiest == 0:
        return 0.0
    if part.experts_s is not None:
        slowest += part.experts_s.at(busiest, group)
    if prompts and busiest > table.capture_tokens and slowest < part.floor_s:
        slowest = part.floor_s
    if table.draft_frac and sequences:
        slowest += table.draft_frac * (slowest if not prompts else _undisturbed_s(table, cells, through=through))
    return slowest + table.step_s + table.sequence_s * sequences


def _undisturbed_s(table: StepTable, cells: Sequence[Cell], *, through: bool) -> float:
    """Kernels of the same step without its prompts."""
    held = [(cell.tokens, cell.sampled) for cell in cells]
    for cell in cells:
        cell.tokens = cell.sampled = 0
    seconds = step_s(table, cells, decodes=True, through=through) / (1.0 + table.draft_frac)
    for cell, (tokens, sampled) in zip(cells, held, strict=True):
        cell.tokens, cell.sampled = tokens, sampled
    return seconds


def until_bend(table: StepTable, cells: Sequence[Cell]) -> float:
    """Steps of decoding for which attention stays linear in the context."""
    most = inf
    for cell in cells:
        if cell.decoding:
            mean = cell.context / cell.decoding
            most = min(most, (table.slowest.decode_s.piece(mean)[2] - mean) / table.accepted_tokens)
    return most
