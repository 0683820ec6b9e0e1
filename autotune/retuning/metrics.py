"""A decision as Prometheus metrics: a text file for the node exporter's textfile collector, replaced whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from autotune.files import write_file
from autotune.retuning.retune_once import Outcome
from costmodel.errors import InputError

PREFIX = "autotune_retune"
DECISIONS = ("keep", "switch", "refuse")

Sample = tuple[dict[str, str], float]


def metrics_text(outcome: Outcome, *, duration_s: float, written_s: float) -> str:
    """Text exposition format 0.0.4; a figure that was not computed is left out.

    `written_s`: when the file is written, Unix time.
    """
    entry = outcome.entry
    lines: list[str] = []
    study = {"study": entry["study_name"]}

    def add(name: str, kind: str, text: str, samples: list[Sample]) -> None:
        if samples:
            lines.extend([f"# HELP {PREFIX}_{name} {text}", f"# TYPE {PREFIX}_{name} {kind}"])
            lines.extend(f"{PREFIX}_{name}{_labels({**study, **labels})} {value!r}" for labels, value in samples)

    add(
        "decision",
        "gauge",
        "1 for the decision of the latest window, 0 for the others.",
        [({"decision": d}, float(entry["decision"] == d)) for d in DECISIONS],
    )
    add("rule", "gauge", "The rule that decided, always 1.", [({"rule": entry["rule"]}, 1.0)])
    add("applied", "gauge", "Whether the candidate is in current.json.", [({}, float(outcome.applied))])
    add("drifted", "gauge", "Whether the traffic drifted.", [({}, float(entry["drift"]["drifted"]))])
    add("window_end_timestamp_seconds", "gauge", "End of the window.", [({}, float(entry["at_s"]))])
    add("run_timestamp_seconds", "gauge", "When this file was written.", [({}, written_s)])
    add("run_duration_seconds", "gauge", "What the run took.", [({}, duration_s)])
    add("decisions_total", "counter", "Decisions in the ledger.", _counts(outcome))
    add("switches_total", "counter", "Switches in the ledger.", [({}, float(len(outcome.ledger.applied)))])
    add("p_better", "gauge", "Probability that the candidate is better.", _one(entry["p_better"]))
    add("net_gain_ratio", "gauge", "Net gain over the horizon.", _one(entry["figures"]["net_gain_frac"]))
    add("payback_seconds", "gauge", "Until the gain has paid for the switch.", _one(entry["figures"]["payback_s"]))
    for name, text in (
        ("value_per_s", "Requests per second within the limits, weighted by the objective."),
        ("p_meets", "Probability of keeping every limit."),
    ):
        add(name.removesuffix("_per_s"), "gauge", text, _sides(entry, name))
    return "\n".join(lines) + "\n"


def write_metrics(path: Path, outcome: Outcome, *, duration_s: float) -> None:
    """Replace the file.

    Raises:
        InputError: the folder does not exist or cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError.single("--metrics", f"must lie in a folder that exists, got {path}")
    write_file(path, metrics_text(outcome, duration_s=duration_s, written_s=time.time()))


def _one(value: float | None) -> list[Sample]:
    return [] if value is None else [({}, float(value))]


def _counts(outcome: Outcome) -> list[Sample]:
    found = [line.decision for line in outcome.ledger.decisions]
    return [({"decision": d}, float(found.count(d))) for d in DECISIONS]


def _sides(entry: Any, name: str) -> list[Sample]:
    out: list[Sample] = []
    for side in ("current", "candidate"):
        plan = entry[side] or {}
        if plan.get(name) is not None:
            out.append(({"side": side, "plan": plan["plan"]}, float(plan[name])))
    return out


def _labels(labels: dict[str, str]) -> str:
    quoted = (f'{k}="{_escaped(v)}"' for k, v in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
