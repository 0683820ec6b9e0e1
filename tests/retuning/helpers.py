"""Decisions that are made up, and the state that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.retuning.ledger import Ledger
from autotune.retuning.lock import locked
from autotune.retuning.state import apply_decision, open_state


def decision(window: int, current: str = "A", candidate: str = "B") -> dict[str, Any]:
    """A decision to switch, as a window leads to it."""
    return {
        "schema": 1,
        "kind": "decision",
        "id": f"window-{window}",
        "at": f"t{window}",
        "at_s": 100.0 * window,
        "decision": "switch",
        "rule": "gain",
        "reason": "made up",
        "study_name": "made up",
        "inputs": {"study": "x", "window": {"start": "", "end": ""}},
        "traffic": {},
        "profile": {},
        "drift": {"drifted": True, "reason": ""},
        "figures": {"net_gain_frac": None, "payback_s": None},
        "p_better": None,
        "switch": None,
        "current": {"plan": current, "engine": "vllm", "knobs": {"concurrency": 7}, "breaks": None, "value_per_s": 1.0},
        "candidate": {
            "plan": candidate,
            "engine": "vllm",
            "knobs": {"concurrency": 9},
            "breaks": None,
            "value_per_s": 2.0,
        },
        "filler": "x" * 3000,
    }


def decide_once(folder: Path, window: int) -> Ledger:
    """What a run does to the state: the window's decision, once, and its switch."""
    with locked(folder):
        ledger = open_state(folder)
        found = ledger.decision(f"window-{window}")
        if found is None:
            found = decision(window, *(("A", "B") if window % 2 else ("B", "A")))
            ledger = ledger.with_entry(found)
        return apply_decision(folder, ledger, found, at=f"t{window}", at_s=100.0 * window, by="apply")
