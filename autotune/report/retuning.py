"""What re-tuning decided: JSON, a paragraph for a terminal, and the ledger as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autotune.comparison.verdict import LIMIT_BROKEN, duration_words
from autotune.report.document import finite
from autotune.report.text_blocks import Cell, Line, Table, text_table, toned
from autotune.report.vocabulary.plan_names import name_of_key
from autotune.report.vocabulary.titles import TONES
from autotune.report.vocabulary.words import signed
from autotune.retuning.entry import DECISION, LAUNCH_KNOBS, SUMMARY
from autotune.retuning.ledger import Entry, Ledger
from autotune.retuning.retune_once import Outcome
from autotune.text.numbers import number, probability

OWN, STUDYS = "engine_options", "as in the study"
_FIRST = ("decision", "rule", "reason", "drift", "current", "candidate", "switch", "p_better", "figures")


def retune_document(outcome: Outcome) -> dict[str, Any]:
    """The decision; `decision`, `rule`, `reason`, `drift`, `current`, `candidate` and `switch` are the contract."""
    entry = outcome.entry
    rest = {k: v for k, v in entry.items() if k not in _FIRST and k not in ("schema", "kind")}
    return finite(
        {
            **{k: entry[k] for k in _FIRST},
            **rest,
            "already_decided": outcome.already_decided,
            "current_plan": outcome.current_plan,
            "noticed": list(outcome.ledger.noticed),
            "applied": outcome.applied,
            "ledger": str(outcome.ledger.path),
            "set_aside": None if outcome.ledger.set_aside is None else str(outcome.ledger.set_aside),
        }
    )


def retune_paragraph(document: dict[str, Any]) -> str:
    """The decision in one paragraph."""
    window = document["inputs"]["window"]
    parts = [
        f"{document['decision'].upper()}: {document['reason']}.",
        f"Window {window['start']} to {window['end']}; {document['drift']['reason']}.",
    ]
    covered = document["traffic"].get("covered_frac", 1.0)
    if covered < 0.95:
        parts.append(f"The log covers {covered:.1%} of the window: its rate is that of the time covered.")
    current, candidate = document["current"], document["candidate"]
    if candidate is not None:
        gains = current["breaks"] is not None or candidate["value_per_s"] > current["value_per_s"]
        parts.append(
            f"Today {name_of_key(current['plan'])}{_serves(current)}; "
            f"{'the best for this traffic is' if gains else 'none serves more of this traffic, and the next best is'} "
            f"{name_of_key(candidate['plan'])}{_settings(current, candidate)}"
            f"{_serves(candidate)}."
        )
        parts += _switch_words(document)
    if not_priced := ((current["knobs"] or {}).get(OWN) or {}).get("not_priced"):
        parts.append(f"The current plan also runs with {', '.join(not_priced)}: not priced.")
    parts += [f"{text[:1].upper()}{text[1:]}." for text in (*document.get("left_out", ()), *document["noticed"])]
    if document["applied"]:
        parts.append("current.json says the new plan.")
    elif document["decision"] == "switch":
        parts.append("Nothing is changed yet: `autotune retune accept` or --apply makes it the current plan.")
    return " ".join(parts)


def _settings(current: dict[str, Any], candidate: dict[str, Any]) -> str:
    """What two launches of one plan differ in; nothing of two plans."""
    if current["plan"] != candidate["plan"]:
        return ""
    before, after = (side["knobs"] or {} for side in (current, candidate))
    differ = [name for name in LAUNCH_KNOBS if name != OWN and before.get(name) != after.get(name)]
    said = [f"{name} {after.get(name)} for {before.get(name)}" for name in differ]
    own = [knobs.get(OWN) or {} for knobs in (before, after)]
    names = [name for name in own[0] | own[1] if own[0].get(name) != own[1].get(name)]
    said += [f"{name} {own[1].get(name, STUDYS)} for {own[0].get(name, STUDYS)}" for name in names]
    return f" with {', '.join(said)}" if said else ""


def _serves(side: dict[str, Any]) -> str:
    if side["breaks"] is not None:
        return f" (breaks {side['breaks']})"
    chance = "" if side.get("p_meets") is None else f", keeps them with {probability(side['p_meets'])}"
    return f" (worth {number(side['value_per_s'], 4)} requests/s within the limits{chance})"


def _switch_words(document: dict[str, Any]) -> list[str]:
    cost = document["switch"]
    if cost is None or not cost["restart"]:
        return []
    takes = (
        f"A switch restarts {cost['gpus_restarted']} GPUs in {duration_words(cost['duration_s'])}, with "
        f"{number(cost['least_capacity_requests_per_s'], 4)} requests/s of capacity at its least against "
        f"{number(cost['load_requests_per_s'], 4)} and {cost['lost_requests']:,.0f} requests that find no room."
    )
    return [takes]


def repeated_line(document: dict[str, Any]) -> Line:
    """A window that was decided on before, in one line."""
    before = document.get("decided_before", document)
    # why a window was refused says what mends it
    why = f" ({before['reason']})" if before["decision"] == "refuse" else ""
    said = f"decided on before, at {before['at']}: {before['decision']}{why}"
    by_now = "" if before is document else f", by now {document['decision']} ({document['reason']})"
    todo = "; `autotune retune accept` or --apply makes it the current plan" if document["decision"] == "switch" else ""
    done = "; current.json says the new plan" if document["applied"] and todo else ""
    runs = name_of_key(document["current_plan"])
    window = document["inputs"]["window"]
    dated = window["end"] >= "2001"  # else the log is empty, or its times count from its own start
    which = f"window to {window['end']}" if dated else "this window"
    text = f"{which} was {said}{by_now}; {runs} runs{done or todo}"
    return Line(text="; ".join([text, *document["noticed"]]), tone=TONES[document["decision"]])


def retune_line(document: dict[str, Any]) -> Line:
    """A run in one line, as a log or a mail of cron has it: when, what, why, and what runs."""
    if document["already_decided"]:
        return replace(repeated_line(document), whole=True)
    todo = ""
    if document["decision"] == "switch" and not document["applied"]:
        wanted = document["candidate"]
        new = f"{name_of_key(wanted['plan'])}{_settings(document['current'], wanted)}"
        todo = f" to {new}; `autotune retune accept` makes it the current plan"
    runs = name_of_key(document["candidate" if document["applied"] else "current"]["plan"])
    said = f"{document['at']} {document['decision']}: {document['reason']}{todo}; {runs} runs"
    text = "; ".join([said, *document["noticed"]])
    return Line(text=f"{text}; decision {document['id'][:12]}", tone=TONES[document["decision"]], whole=True)


def retune_lines(document: dict[str, Any]) -> list[Line]:
    """The paragraph, and where it is recorded; one line where the window had been decided on before."""
    if document["already_decided"]:
        return [repeated_line(document)]
    out = [Line(text=retune_paragraph(document), tone=TONES[document["decision"]])]
    out += [Line(text=f"  {line}") for line in document.get("launch_difference") or []]
    if document["set_aside"] is not None:
        out.append(Line(text=f"A run was cut off while it wrote; the torn line is in {document['set_aside']}"))
    return [*out, Line(text=f"decision {document['id'][:12]} in {document['ledger']}", tone="dim")]


def history_document(ledger: Ledger, *, last: int = 0) -> dict[str, Any]:
    """The ledger's entries in short, oldest first; the `last` of them, 0: all."""
    rows = [_history_row(ledger, line.entry) for line in ledger.lines[-last:]]
    return finite({"ledger": str(ledger.path), "entries": rows})


def _history_row(ledger: Ledger, entry: Entry) -> dict[str, Any]:
    if entry["kind"] == SUMMARY:
        return {name: entry[name] for name in ("at", "until", "kind", "id", "decisions", "archive")}
    if entry["kind"] != DECISION:
        sides = {"from": entry["from"]["plan"], "to": entry["to"]["plan"]}
        return {name: entry[name] for name in ("at", "kind", "id", "by")} | sides
    return {
        "at": entry["at"],
        "kind": entry["kind"],
        "id": entry["id"],
        "decision": entry["decision"],
        "rule": entry["rule"],
        "reason": entry["reason"],
        "from": entry["current"]["plan"],
        "to": None if entry["candidate"] is None else entry["candidate"]["plan"],
        "net_gain_frac": entry["figures"].get("net_gain_frac"),
        "p_better": entry.get("p_better"),
        "applied": ledger.is_applied(entry["id"]),
    }


def history_table(document: dict[str, Any]) -> Table | None:
    """The ledger as a table, newest last. None: it is empty."""
    rows: list[tuple[str | Cell, ...]] = []
    for row in document["entries"]:
        if row["kind"] == SUMMARY:
            counts = ", ".join(f"{count} {decision}" for decision, count in row["decisions"].items())
            rows.append((row["at"] or "", row["id"][:12], "archived", counts, row["archive"], "", "", ""))
            continue
        if row["kind"] != DECISION:
            rows.append((row["at"], row["id"][:12], f"applied by {row['by']}", "", row["from"], row["to"], "", ""))
            continue
        gain, sure = row["net_gain_frac"], row["p_better"]
        decision = toned(row["decision"], TONES)
        chance = "" if sure is None else probability(sure)
        # of a plan that breaks a limit, which is worth next to nothing, the gain is no share that says anything
        figures = ("" if gain is None or row["rule"] == LIMIT_BROKEN else signed(gain), chance)
        rows.append((row["at"], row["id"][:12], decision, row["rule"], row["from"], row["to"] or "", *figures))
    header = ("at", "id", "decision", "rule", "current plan", "candidate", "net gain", "P(better)")
    return text_table(header, rows, texts=range(6)) if rows else None
