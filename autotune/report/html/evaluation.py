"""What a plan does and why, as a page. Depends on the fixed fields of an evaluation's JSON document alone.

`verdict`, `plan`, `layout`, `checks`, `strategy`, `memory`, `balance`, `compatibility`, `performance`, `claims` and
`assumptions` are the contract; whatever other fields the parts hold is shown as it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.report.html.bars import Series, stacked_bars
from autotune.report.html.section import GIB, Section, Tile, document_page, field_words, fields_table, tables_within
from autotune.report.html.sections import EXPERTS, MEMORY_PARTS, NOT_WEIGHTS
from autotune.report.html.shapes import Chart, exact, number
from autotune.report.html.table import Cell, Column, Row, Table
from autotune.report.html.verdict import Verdict
from autotune.report.html.words import LIMITS, MEMORY, METRICS, percent

TONES = {"OPTIMAL": "good", "ACCEPTABLE": "open", "HARMFUL": "bad", "INFEASIBLE": "bad"}
STATUSES = {"confirmed": "good", "refuted": "bad", "undecidable": "open"}
AXES = {"EP": "experts", "PP": "pipeline stages", "TP": "attention tensor parallelism", "DP": "replicas"}
MOST_STAGES = 16
"""Stages drawn one by one; of more, the fullest and the table say it."""


def evaluation_page(document: Mapping[str, Any]) -> str:
    """The page of an evaluation's document."""
    checks = document["checks"]
    passed = document["verdict"] == "PASSED"
    failed = [c for c in checks if not c["passed"]]
    kept = f"{len(checks) - len(failed)} of {len(checks)} checks pass"
    lines = [*_sentences(document.get("summary")), *_sentences(document.get("conclusion"))]
    sections = [
        Section(key="checks", title="Checks", lead="Each figure with its limit.", tables=(_checks(checks),)),
        *_fields("compatibility", "Compatibility", document["compatibility"]),
        *_fields("performance", "Performance", document["performance"]),
        Section(
            key="strategy",
            title="Strategy, axis by axis",
            lead="The best plan with that axis at each other value, all else free, against this plan.",
            tables=(_strategy(document["strategy"]),),
        ),
        Section(
            key="memory",
            title="Memory",
            charts=_memory_charts(document),
            tables=(_memory_table(document["memory"]),),
        ),
        *_fields("balance", "Load balance", document["balance"]),
    ]
    if document["claims"]:
        sections.append(_claims(document["claims"]))
    study = document.get("study")
    return document_page(
        kind="evaluation",
        title=str(study or document["plan"]),
        facts=[str(document["plan"])] if study else [],
        verdict=Verdict(
            kind="good" if passed else "bad",
            badge=document["verdict"],
            headline=f"{document['plan']}: {document['verdict']}, {kept}.",
            lines=tuple(lines),
        ),
        tiles=_tiles(checks),
        sections=sections,
        assumptions=document["assumptions"],
    )


def _sentences(value: Any) -> list[str]:
    """A text, texts, or fields, as lines."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [": ".join(field_words(k, v)) for k, v in value.items() if v is not None]
    return [str(v) for v in value]


def _tiles(checks: Sequence[Mapping[str, Any]]) -> tuple[Tile, ...]:
    """The checks that fail, then those that pass, five at most."""
    first = sorted(checks, key=lambda c: c["passed"])[:5]
    return tuple(
        Tile(
            title=_name(c),
            value=_figure(c["value"], c["unit"]),
            unit=_unit(c["unit"]),
            small="" if c["limit"] is None else f"limit {_figure(c['limit'], c['unit'], asked=True)}",
            change="✓ passes" if c["passed"] else "✗ fails",
        )
        for c in first
    )


def _name(check: Mapping[str, Any]) -> str:
    name = str(check["name"])
    if name in LIMITS:
        return LIMITS[name]
    if name in METRICS:
        return METRICS[name].title
    return name if " " in name else field_words(name, 0.0)[0]


SHARES = {"of GPU memory", "of time", "probability", "frac", "fraction"}


def _figure(value: Any, unit: Any, *, asked: bool = False) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return field_words("", value)[1]
    if unit in SHARES:
        return percent(float(value), 1 if 0.99 < value < 1.0 else 0)
    return exact(float(value)) if asked else number(float(value))


def _unit(unit: Any) -> str:
    return "" if unit in SHARES or not unit else str(unit)


def _checks(checks: Sequence[Mapping[str, Any]]) -> Table:
    rest = [n for n in dict.fromkeys(n for c in checks for n in c) if n not in CHECK_FIELDS]
    rows = []
    for c in checks:
        limit = "–" if c["limit"] is None else _figure(c["limit"], c["unit"], asked=True)
        cells = [
            Cell(text=_name(c)),
            Cell(
                text=f"{'✓' if c['passed'] else '✗'} {_figure(c['value'], c['unit'])}",
                small=_unit(c["unit"]),
                tone="good" if c["passed"] else "bad",
            ),
            Cell(text=limit),
            *(Cell(text=field_words(n, c.get(n))[1]) for n in rest),
        ]
        rows.append(Row(cells=tuple(cells)))
    columns = [Column(title="Check", numeric=False), Column(title="Value"), Column(title="Limit")]
    columns += [Column(title=field_words(n, 0.0)[0], numeric=False) for n in rest]
    return Table(caption="", columns=tuple(columns), rows=tuple(rows))


CHECK_FIELDS = ("name", "value", "limit", "unit", "passed")


def _strategy(rows: Sequence[Mapping[str, Any]]) -> Table:
    fixed = ("axis", "value", "verdict", "loss_frac", "reason")
    rest = [n for n in dict.fromkeys(n for r in rows for n in r) if n not in fixed and _plain(rows, n)]
    out = []
    for r in rows:
        loss = "–" if r["loss_frac"] is None else percent(r["loss_frac"], 1)
        cells = [
            Cell(text=str(r["axis"]), small=AXES.get(str(r["axis"]), "")),
            Cell(text=field_words("", r["value"])[1]),
            Cell(text=str(r["verdict"]), tone=TONES.get(str(r["verdict"]), "")),
            Cell(text=loss),
            *(Cell(text=field_words(n, r.get(n))[1]) for n in rest),
            Cell(text=str(r["reason"])),
        ]
        out.append(Row(cells=tuple(cells)))
    columns = [
        Column(title="Axis", numeric=False),
        Column(title="Value"),
        Column(title="Verdict", numeric=False),
        Column(title="Loses"),
        *(Column(title=field_words(n, 0.0)[0], numeric=False) for n in rest),
        Column(title="Because", numeric=False),
    ]
    return Table(caption="", columns=tuple(columns), rows=tuple(out))


def _plain(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a field fits a cell."""
    return all(not isinstance(r.get(name), (Mapping, list, tuple)) for r in rows)


def _memory_charts(document: Mapping[str, Any]) -> tuple[Chart, ...]:
    """A bar for each stage: what is in use, of the kinds that a GPU holds."""
    stages: dict[str, dict[str, float]] = {}
    for row in document["memory"]:
        kind, held = str(row["kind"]), float(row["bytes"])
        if kind in ("free", "total"):
            continue
        part = "experts" if kind in EXPERTS else kind if kind in NOT_WEIGHTS else "weights"
        stage = stages.setdefault(_stage(row), {})
        stage[part] = stage.get(part, 0.0) + held / GIB
    shown = list(stages.items())[:MOST_STAGES]
    if not shown:
        return ()
    series = [Series(name=name, role="first", values=parts) for name, parts in shown]
    chart = stacked_bars("Memory of one GPU", unit="GiB", parts=MEMORY_PARTS, series=series)
    return (chart,)


def _stage(row: Mapping[str, Any]) -> str:
    rank = row.get("rank")
    return f"Stage {row['stage']}" + ("" if rank is None else f", rank {rank}")


def _memory_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    stages = list(dict.fromkeys(_stage(r) for r in rows))[:MOST_STAGES]
    held: dict[str, dict[str, float]] = {}
    for r in rows:
        by_stage = held.setdefault(str(r["kind"]), {})
        by_stage[_stage(r)] = by_stage.get(_stage(r), 0.0) + float(r["bytes"])
    out = [
        Row(
            cells=(
                Cell(text=MEMORY.get(kind, field_words(kind, "")[0])),
                *(Cell(text=f"{by_stage.get(s, 0.0) / GIB:,.2f}") for s in stages),
            )
        )
        for kind, by_stage in held.items()
    ]
    columns = (Column(title="Kind", numeric=False), *(Column(title=s, unit="GiB") for s in stages))
    return Table(caption="", columns=columns, rows=tuple(out))


def _fields(key: str, title: str, values: Any) -> tuple[Section, ...]:
    """A part of the document whose fields are not fixed."""
    if not values:
        return ()
    if not isinstance(values, Mapping):
        return (Section(key=key, title=title, tables=tables_within({title: values})),)
    table = fields_table("", values)
    return (Section(key=key, title=title, tables=((table,) if table.rows else ()) + tables_within(values)),)


def _claims(claims: Sequence[Mapping[str, Any]]) -> Section:
    counts = {s: sum(c["status"] == s for c in claims) for s in STATUSES}
    rows = tuple(
        Row(
            cells=(
                Cell(text=str(c["claim"])),
                Cell(text=str(c["status"]), tone=STATUSES.get(str(c["status"]), "")),
                Cell(text=field_words("", c["claimed"])[1]),
                Cell(text=field_words("", c["computed"])[1]),
                Cell(text=str(c["reason"])),
            ),
        )
        for c in claims
    )
    columns = tuple(Column(title=t, numeric=False) for t in ("Claim", "Status", "Claimed", "Computed", "Reason"))
    return Section(
        key="claims",
        title="Claims",
        lead=", ".join(f"{n} {s}" for s, n in counts.items()) + ".",
        tables=(Table(caption="", columns=columns, rows=rows),),
    )
