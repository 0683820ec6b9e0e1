"""What runs, and who said so: the ledger's last switch, the study's baseline, a command line, or somebody's hand.

A state belongs to one model. What the study says of the plan in production counts until a switch is made, and again
when it is changed: then somebody put another plan into production, and the ledger takes note of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from autotune.disaggregated.plan_results import full_pooled
from autotune.retuning.decide import as_baseline
from autotune.retuning.entry import APPLIED, LAUNCH_KNOBS
from autotune.retuning.ledger import Entry, Ledger
from autotune.retuning.state import change_by_hand, launch_of
from autotune.space import format_plan, parse_plan, resolve
from autotune.space.pooled_planstring import is_pooled
from autotune.study import Baseline, Study, own_option_values
from costmodel.errors import InputError


def ledger_in_step(study: Study, folder: Path, ledger: Ledger, current: Baseline | None = None) -> Ledger:
    """The ledger with a line more where the plan in production was changed by hand, or cannot be on these GPUs.

    `current` is what was told to run beside the study: it counts when it is first told, then the ledger goes on.

    Raises:
        InputError: the state is of another model, or the study names no plan that can run.
    """
    last = next((line.entry for line in reversed(ledger.decisions)), None)
    model = None if last is None else last.get("model")
    if model is not None and model != study.arch.name:
        raise InputError.single(
            str(folder),
            f"is the state of {str(model)[:200]}, and the study is about {study.arch.name}: give it a state of its own",
        )
    if current is not None and (last is None or last.get("told") != baseline_entry(current)):
        return _told(study, folder, ledger, current, last)
    if study.baseline is None or last is None:
        return ledger
    runs = running_side(ledger, last)
    told = study.baseline
    if isinstance(last.get("baseline"), dict) and last["baseline"] != baseline_entry(told):
        side = resolved_side(study, told)
        if not _same(side, runs):
            said = f"the study's baseline was changed by hand: {side['plan']} runs, not {runs['plan']}"
            return change_by_hand(folder, ledger, runs, side, said)
    if ledger.applied and not _has_reading(study, runs):
        side = resolved_side(study, told)
        said = (
            f"{runs['plan']} has no reading on {study.cluster.gpus} GPUs: the study's baseline counts as what runs, "
            f"{side['plan']}; if it is another, write it into baseline.plan"
        )
        return change_by_hand(folder, ledger, runs, side, said)
    return ledger


def _told(study: Study, folder: Path, ledger: Ledger, current: Baseline, last: Entry | None) -> Ledger:
    side = resolved_side(study, current, path="--current")
    runs = side if last is None else running_side(ledger, last)
    if last is not None and _same(side, runs):
        return ledger
    said = f"{side['plan']}{_started_words(side)} was told to run, not {runs['plan']}{_started_words(runs)}"
    told = change_by_hand(folder, ledger, runs, side, said)
    return told if last is not None else replace(told, noticed=ledger.noticed)


def _started_words(side: Mapping[str, Any]) -> str:
    own = (side["knobs"] or {}).get("engine_options") or {}
    words = [f"{name} {value}" for name, value in own.items() if name != "not_priced"]
    return f" with {', '.join([*words, *own.get('not_priced', ())])}" if own else ""


def running_side(ledger: Ledger, last: Entry) -> Entry:
    """The plan that runs, as entries have it: after the last switch, or as the last decision found it."""
    side: Entry = ledger.applied[-1]["to"] if ledger.applied else last["current"]
    return side


def current_baseline(study: Study, ledger: Ledger) -> Baseline:
    """What runs: the last switch that was made, or the study's baseline.

    Raises:
        InputError: neither is known.
    """
    if ledger.applied:
        last = ledger.applied[-1]["to"]
        return replace(as_baseline(launch_of(last)), engine=last["engine"])
    if study.baseline is None:
        raise InputError.single("$.baseline", "must name the plan in production: that is what may be kept or left")
    # the window says the load; a number in flight from before says nothing of it
    return replace(study.baseline, concurrency=None)


def baseline_entry(told: Baseline) -> dict[str, Any]:
    """The baseline as the study writes it, as JSON content; without engine options where it has none of its own."""
    out = {name: value for name, value in asdict(told).items() if name not in ("concurrency", "engine_options")}
    return out if told.engine_options is None else out | {"engine_options": own_option_values(told.engine_options)}


def still_runs(ledger: Ledger, decision: Entry) -> bool:
    """Whether the plan that a decision was to leave runs: nothing was put into production since, or the same again."""
    since = takewhile(lambda line: line.kind == APPLIED or line.id != decision["id"], reversed(ledger.lines))
    changed = any(line.kind == APPLIED for line in since)
    return not changed or same_launch(running_side(ledger, decision), decision["current"])


def same_launch(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sides of entries are one launch; of a plan that was told to run, as far as it was told."""
    for told, whole in ((one, other), (other, one)):
        if launch_of(told).max_num_batched_tokens is None:
            return _same(told, whole)
    return launch_of(one) == launch_of(other)


def _same(told: Mapping[str, Any], runs: Mapping[str, Any]) -> bool:
    """Whether what was told of a plan is what runs, as far as that is known."""
    given, known = told["knobs"] or {}, runs["knobs"] or {}
    alike = all(given.get(name) in (None, known.get(name)) or name not in known for name in LAUNCH_KNOBS)
    # who tells of no engine options says that they are the study's
    started_alike = (given.get("engine_options") or None) == (known.get("engine_options") or None)
    return told["plan"] == runs["plan"] and alike and started_alike


def resolved_side(study: Study, told: Baseline, path: str = "$.baseline.plan") -> dict[str, Any]:
    """A plan that is named, as entries have it: with its whole plan string.

    Raises:
        InputError: it has no reading on the study's GPUs.
    """
    try:
        plan, engine = full_plan(study, told.plan, told.engine)
    except InputError as error:
        message = f"{error.problems[0].message}; write the plan that runs now into it"
        raise InputError.single(path, message) from error
    knobs = {name: value for name, value in baseline_entry(told).items() if name not in ("plan", "engine")}
    return {"plan": plan, "engine": engine, "knobs": knobs}


def full_plan(study: Study, text: str, engine: str | None) -> tuple[str, str]:
    """The full string that a plan string means on the study's GPUs, and its engine.

    Raises:
        InputError: it has no reading there.
    """
    if is_pooled(text):
        return full_pooled(study, text, engine=engine)
    found = resolve(parse_plan(text), arch=study.arch, gpus=study.cluster.gpus, engine=engine or study.engine).candidate
    return format_plan(found.layout, found.engine, found.gpu), found.engine


def _has_reading(study: Study, side: Mapping[str, Any]) -> bool:
    try:
        full_plan(study, side["plan"], side["engine"] or "any")
    except InputError:
        return False
    return True
