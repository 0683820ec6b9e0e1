"""One run of `autotune retune`: profile the window, compare with what the current plan was chosen for, decide, record.

The same inputs lead to the same recorded decision and to no second entry: study, policy, calibration, cost model and
the window's traffic together are the decision's id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autotune.comparison import Comparison
from autotune.retuning.decide import KEEP, REFUSE, SETTLED, SWITCH
from autotune.retuning.decide_window import judge, on_own_cluster
from autotune.retuning.entry import APPLIED, DECISION, SCHEMA, digest, iso, side_entry, switch_entry
from autotune.retuning.launching import launch_difference
from autotune.retuning.ledger import Entry, Ledger
from autotune.retuning.lock import locked
from autotune.retuning.running import (
    baseline_entry,
    current_baseline,
    ledger_in_step,
    resolved_side,
    running_side,
    still_runs,
)
from autotune.retuning.state import HAND, apply_decision, open_state, past_switches
from autotune.retuning.window import TIMEOUT_S, Window, compare_profiles, is_ahead, read_window
from autotune.study import Baseline, Study, study_fingerprint
from autotune.traffic.options import AS_THEY_SAY, ReadOptions
from costmodel.errors import InputError

WARM_PLANS = 8
"""Plans of earlier decisions that are evaluated at every kind of request, whatever the ranking at mean lengths says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run led to."""

    entry: Entry
    """The decision as it stands in the ledger, or as it stands by now (`as_it_stands`)."""
    already_decided: bool
    """Whether the window had been decided on before, on the same inputs."""
    applied: bool
    """Whether the candidate was put into production."""
    current_plan: str
    """What runs after it."""
    ledger: Ledger


def retune(  # noqa: PLR0913  # one for each thing that may be asked
    study: Study,
    traffic: str,
    folder: Path,
    *,
    window_s: float,
    now_s: float | None = None,
    clock_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
    options: ReadOptions = AS_THEY_SAY,
    apply: bool = False,
    current: Baseline | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Decide on a window of traffic, once.

    Args:
        study: from `load_study`; its baseline is the current plan until a switch is recorded or `current` is told.
        traffic: a log or an address that `autotune.traffic` reads.
        folder: of the state; made where it does not exist.
        window_s: length of the window that ends now, seconds.
        now_s: the end of the window, Unix time; None: the log's last request, or the clock where there is none.
        clock_s: the present, Unix time; None: the clock.
        timeout_s: of an address.
        options: what the log does not say of itself.
        apply: whether a switch is put into `current.json` at once.
        current: the plan that runs where that is not the study's baseline: told once, the ledger goes on from it.
        progress: of the tuning, as in `tune`.

    Raises:
        BusyError: at once, where another run holds the folder.
        InputError: traffic, study or state cannot be read.
    """
    given, study = study, on_own_cluster(study)
    clock_s = time.time() if clock_s is None else clock_s
    with locked(folder):
        ledger = ledger_in_step(study, folder, open_state(folder), current)
        window = read_window(
            study,
            traffic,
            window_s=window_s,
            now_s=now_s,
            warm_from_s=_warm_from_s(study, ledger),
            clock_s=clock_s,
            timeout_s=timeout_s,
            options=options,
        )
        inputs = _inputs(study, window)
        known = ledger.decision(inputs["id"])
        if known is None:
            entry: Entry = _decided(study, window, inputs, ledger, clock_s, progress)
            left_out = [text for text in study.assumptions if text not in given.assumptions]
            last = ledger.decisions[-1].entry if ledger.decisions else {}
            told = last.get("told") if current is None else baseline_entry(current)
            extra = {"left_out": left_out, "noticed": list(ledger.noticed), "told": told}
            entry = {**entry, **{name: said for name, said in extra.items() if said}}
            ledger = ledger.with_entry(entry)
        else:
            entry = as_it_stands(ledger, known)
        if apply and entry["decision"] == SWITCH:
            ledger = apply_decision(folder, ledger, entry, at=entry["at"], at_s=entry["at_s"], by="apply")
        return Outcome(
            entry=entry,
            already_decided=known is not None,
            applied=ledger.is_applied(entry["id"]),
            current_plan=running_side(ledger, entry)["plan"],
            ledger=ledger,
        )


ALREADY_APPLIED, OVERTAKEN = "already_applied", "overtaken"
"""Rules of a window that is read again after its decision was carried out, or was made void by what came after it."""


def as_it_stands(ledger: Ledger, known: Entry) -> Entry:
    """An earlier decision as it stands by now: a switch that was made, or that is not wanted any more, is none.

    A recommendation is void once a later window was decided on, or where another plan runs than it was to leave.
    """
    if known["decision"] != SWITCH:
        return known
    runs = running_side(ledger, known)["plan"]
    if ledger.is_applied(known["id"]):
        rule, reason = ALREADY_APPLIED, f"the switch to {known['candidate']['plan']} was made before; {runs} runs"
    elif (later := _later(ledger, known)) is not None:
        rule, reason = OVERTAKEN, f"a later window was decided on, that of {later['at']}; {runs} runs"
    elif not still_runs(ledger, known):
        rule, reason = OVERTAKEN, f"it was to leave {known['current']['plan']}, and {runs} runs by now"
    else:
        return known
    before = {name: known[name] for name in ("at", "decision", "rule", "reason")}
    return {**known, "decision": KEEP, "rule": rule, "reason": reason, "decided_before": before}


def _later(ledger: Ledger, known: Entry) -> Entry | None:
    """A decision on a later window that came after this one."""
    for line in reversed(ledger.decisions):
        if line.id == known["id"]:
            return None
        if line.decision != REFUSE and line.entry["at_s"] > known["at_s"]:
            return line.entry
    return None


def accept(folder: Path, decision: str | None, *, now_s: float) -> Outcome:
    """Put a recommended switch into production: the latest decision, or the one whose id begins with `decision`.

    Raises:
        BusyError: at once, where another run holds the folder.
        InputError: there is no such decision, it is no switch, or another switch was made after it.
    """
    with locked(folder):
        ledger = open_state(folder)
        entry = _accepted(folder, ledger, decision)
        known = ledger.is_applied(entry["id"])
        ledger = apply_decision(folder, ledger, entry, at=iso(now_s), at_s=now_s, by="accept")
        runs = running_side(ledger, entry)["plan"]
        return Outcome(entry=entry, already_decided=known, applied=True, current_plan=runs, ledger=ledger)


def _accepted(folder: Path, ledger: Ledger, decision: str | None) -> Entry:
    found = [line for line in ledger.decisions if decision is None or line.id.startswith(decision)]
    if not found:
        which = "" if decision is None else f" whose id begins with {decision!r}"
        raise InputError.single(str(folder), f"holds no decision{which}; `autotune retune history` shows them")
    if len({line.id for line in found}) > 1 and decision is not None:
        raise InputError.single("--id", f"must name one decision, {decision!r} begins {len(found)} of them")
    entry = found[-1].entry
    if entry["decision"] != SWITCH:
        raise InputError.single(
            str(folder), f"the decision of {entry['at']} is {entry['decision']} ({entry['rule']}): nothing to accept"
        )
    left, runs = entry["current"], running_side(ledger, entry)
    if not ledger.is_applied(entry["id"]) and not still_runs(ledger, entry):
        how = " with other settings" if runs["plan"] == left["plan"] else ""
        raise InputError.single(
            str(folder),
            f"the decision of {entry['at']} was to leave {left['plan']}, but {runs['plan']} runs by now{how}",
        )
    return entry


def _warm_from_s(study: Study, ledger: Ledger) -> float | None:
    """When the plan that runs had been started and warmed up; None: nobody knows, or it was there before the ledger."""
    last = ledger.applied[-1] if ledger.applied else None
    if last is None or last["by"] == HAND or last["to"]["engine"] not in study.switch.startup_s:
        return None
    return float(last["at_s"] + study.switch.startup_s[last["to"]["engine"]] + study.switch.warmup_s)


def _inputs(study: Study, window: Window) -> dict[str, Any]:
    """Fingerprints of everything that a decision rests on, and their own as its id."""
    policy = {k: v for k, v in asdict(study.retune).items() if k != "assumptions"}
    takes = {k: v for k, v in asdict(study.switch).items() if k != "assumptions"}
    out = {
        "study": study_fingerprint(study),
        "policy": digest([policy, takes]),
        "traffic": window.fingerprint,
        "window": {"start": iso(window.start_s), "end": iso(window.end_s)},
    }
    return {"id": digest(out), **out}


def _decided(
    study: Study,
    window: Window,
    inputs: Mapping[str, Any],
    ledger: Ledger,
    clock_s: float,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """The entry of a window that was not decided on before."""
    current = current_baseline(study, ledger)
    reference = _reference(ledger)
    drift = compare_profiles(window, None if reference is None else reference["profile"])
    fresh = reference is None or reference["inputs"]["study"] != inputs["study"]
    decision, found = judge(
        replace(window.study, baseline=current),
        now_s=window.at_s,
        refusal=window.refusal,
        changed=drift.drifted or fresh,
        history=[past for past in past_switches(ledger) if not is_ahead(past.at_s, clock_s, window.at_s)],
        also=_earlier(ledger),
        progress=progress,
    )
    return {
        "schema": SCHEMA,
        "kind": DECISION,
        "id": inputs["id"],
        "at": iso(window.at_s),
        "at_s": window.at_s,
        "study_name": study.name,
        "model": study.arch.name,
        "baseline": None if study.baseline is None else baseline_entry(study.baseline),
        "inputs": {k: v for k, v in inputs.items() if k != "id"},
        "traffic": window.document,
        "profile": window.profile,
        "drift": {
            "drifted": drift.drifted,
            "reason": drift.reason,
            "since": None if reference is None else reference["at"],
            "study_changed": reference is not None and fresh,
            **drift.document,
        },
        **{name: getattr(decision, name) for name in ("decision", "rule", "reason")},
        "figures": {name: getattr(decision, name) for name in ("net_gain", "net_gain_frac", "payback_s")},
        **_sides(study, current, found),
        "launch_difference": _launching(window.study, found) if decision.decision == SWITCH else [],
    }


def _reference(ledger: Ledger) -> Entry | None:
    """The decision whose traffic the current plan is known to be right for.

    That is the one which chose it, or a later one that kept it for what both plans do on that traffic, not for the time
    of the day; None: nobody ever looked. Windows without drift are no reference, so that a slow drift adds up.
    """
    for line in reversed(ledger.lines):
        if line.kind == APPLIED:
            return ledger.decision(line.id)
        if line.kind == DECISION and line.rule in SETTLED:
            return line.entry
    return None


def _earlier(ledger: Ledger) -> list[str]:
    """Plans of earlier decisions, newest first: the search starts from what it once found."""
    found: dict[str, None] = {}
    for line in reversed(ledger.decisions):
        if len(found) >= WARM_PLANS:
            break
        plan = (line.entry["candidate"] or {}).get("plan") if line.rule != "no_drift" else None
        if plan is not None:
            found[plan] = None
    return list(found)


def _launching(study: Study, found: Comparison | None) -> list[str]:
    """What to start instead, as a difference of commands."""
    if found is None or found.candidate is None or found.current.result is None or found.candidate.result is None:
        return []
    return list(launch_difference(study, found.current.result, found.candidate.result))


def _sides(study: Study, current: Baseline, found: Comparison | None) -> dict[str, Any]:
    if found is None:
        return {"current": resolved_side(study, current), "candidate": None, "switch": None, "p_better": None}
    return {
        "current": side_entry(found.current),
        "candidate": None if found.candidate is None else side_entry(found.candidate),
        "switch": None if found.switch is None else switch_entry(found.switch, found.gain),
        "p_better": found.p_better,
    }
