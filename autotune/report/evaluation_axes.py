"""Why a plan does what it does: verdicts on its axes, and time by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.report.text_blocks import Block
from autotune.scoring.gpu_time import WORDS


def strategy_block(rows: Sequence[Mapping[str, Any]]) -> Block:
    """The verdict on each axis."""
    shown = [
        (
            v["axis"],
            str(v["value"]),
            v["verdict"],
            "" if v["loss_frac"] is None else f"{v['loss_frac']:.1%}",
            v["reason"],
        )
        for v in rows
    ]
    header = ("axis", "value", "verdict", "loses", "because")
    return Block(title="Strategy, axis by axis", header=header, rows=shown, texts=(0, 2, 4))


def alternatives_block(rows: Sequence[Mapping[str, Any]]) -> Block:
    """Loss of the best plan with each value of each axis; values that no axis has a plan with are left out."""
    found = {
        v["axis"]: {a["value"]: a["loss_frac"] for a in [v, *v["alternatives"]] if a["loss_frac"] is not None}
        for v in rows
    }
    values = sorted({n for losses in found.values() for n in losses} | {v["value"] for v in rows})

    def cell(axis: str, value: int, own: int) -> str:
        loss = found[axis].get(value)
        shown = "none" if loss is None else f"{loss:.1%}"
        return f"[{shown}]" if value == own else shown

    return Block(
        title="Other values of each axis",
        header=("axis", *(str(n) for n in values)),
        rows=[(v["axis"], *(cell(v["axis"], n, v["value"]) for n in values)) for v in rows],
        lines=(
            "what the best plan with the value loses against the best of all, all else free; [in brackets]: this plan",
            "none: no plan with this value keeps every limit, and none with a value that is not listed",
        ),
    )


def time_block(rows: Sequence[Mapping[str, Any]]) -> Block:
    """GPU time of a request by operator, beside the best plan's."""
    shown = [
        (
            f"{WORDS[r['operator']]}{'' if r['phase'] == 'rest' else ' in ' + r['phase']}",
            f"{r['gpu_s'] * 1e3:,.2f}",
            "" if r["best_gpu_s"] is None else f"{r['best_gpu_s'] * 1e3:,.2f}",
        )
        for r in rows
    ]
    mine, best = (sum(r[n] or 0.0 for r in rows) for n in ("gpu_s", "best_gpu_s"))
    shown.append(("all", f"{mine * 1e3:,.2f}", f"{best * 1e3:,.2f}" if best else ""))
    return Block(title="Time by operator", header=("GPU-ms of a request", "this plan", "best plan"), rows=shown)
