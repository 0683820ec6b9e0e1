"""Pages of sections: what a document page is made of, and how fields become words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.report.html.page import render
from autotune.report.html.shapes import Chart, number
from autotune.report.html.table import Cell, Column, Row, Table
from autotune.report.html.verdict import Verdict
from autotune.report.html.words import percent

GIB = 2**30
_CAPITALS = ("ttft", "tpot", "gpu", "kv", "pp", "tp", "dp", "ep", "hbm", "id", "p10", "p90", "mtp", "cp", "ffn", "lm")
ABBREVIATIONS = {w: w.upper() for w in _CAPITALS} | {"gpus": "GPUs", "util": "use", "p10": "p10", "p90": "p90"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One key figure."""

    title: str
    value: str
    unit: str = ""
    small: str = ""
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, charts side by side, tables, and lines of text."""

    key: str
    """Where links in the page lead."""
    title: str
    lead: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """(class of the mark, words)"""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()


def document_page(
    *,
    kind: str,
    title: str,
    facts: Sequence[str],
    verdict: Verdict,
    tiles: Sequence[Tile],
    sections: Sequence[Section],
    assumptions: Sequence[str],
) -> str:
    """A page of sections."""
    return render(
        "document.html.jinja",
        kind=kind,
        title=title,
        facts=facts,
        verdict=verdict,
        tiles=tiles,
        sections=sections,
        assumptions=assumptions,
    )


def field_words(name: str, value: Any) -> tuple[str, str]:
    """A field as (what it is, how much): units out of the name, in figures that people read."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        shown = {True: "yes", False: "no", None: "–"}.get(value, value) if not isinstance(value, str) else value
        return _spaced(name), str(shown)
    if isinstance(value, int):
        return _with_unit(name, float(value)) if name.endswith("_bytes") else (_spaced(name), f"{value:,}")
    if isinstance(value, float):
        return _with_unit(name, value)
    if isinstance(value, Mapping):
        return _spaced(name), "; ".join(" ".join(field_words(str(k), v)) for k, v in value.items())
    return _spaced(name), ", ".join(field_words("", v)[1] for v in value) or "–"


def _with_unit(name: str, value: float) -> tuple[str, str]:
    if name.endswith("_frac"):
        return _spaced(name.removesuffix("_frac")), percent(value, 1)
    if name.endswith("_bytes"):
        return _spaced(name.removesuffix("_bytes")), f"{number(value / GIB)} GiB"
    if name.endswith("_per_s_per_gpu"):
        return _spaced(name.removesuffix("_per_s_per_gpu")), f"{number(value)} /s per GPU"
    if name.endswith("_per_s"):
        return _spaced(name.removesuffix("_per_s")), f"{number(value)} /s"
    if name.endswith("_s"):
        shown = f"{number(value * 1e3)} ms" if abs(value) < 1.0 else f"{number(value)} s"
        return _spaced(name.removesuffix("_s")), shown
    return _spaced(name), number(value, 4)


def _spaced(name: str) -> str:
    """`kv_cache` as `KV cache`."""
    words = [ABBREVIATIONS.get(w, w) for w in name.split("_") if w]
    text = " ".join(words)
    return text if words and words[0] in ABBREVIATIONS.values() else text[:1].upper() + text[1:]


def fields_table(caption: str, values: Mapping[str, Any]) -> Table:
    """A field a row; tables within come from `tables_within`."""
    rows = []
    for name, value in values.items():
        if _is_rows(value):
            continue
        if isinstance(value, Mapping) and len(value) > 3:
            rows += [_row(f"{_spaced(name)}: ", str(k), v) for k, v in value.items() if not _is_rows(v)]
        else:
            rows.append(_row("", name, value))
    columns = (Column(title="What", numeric=False), Column(title="Value", numeric=False))
    return Table(caption=caption, columns=columns, rows=tuple(rows))


def _row(before: str, name: str, value: Any) -> Row:
    words, shown = field_words(name, value)
    return Row(cells=(Cell(text=f"{before}{words}"), Cell(text=shown)))


def tables_within(values: Mapping[str, Any]) -> tuple[Table, ...]:
    """The lists of records among fields, a table each."""
    return tuple(records_table(_spaced(name), value) for name, value in values.items() if _is_rows(value))


def records_table(caption: str, records: Sequence[Mapping[str, Any]]) -> Table:
    """Records with the same fields as a table."""
    names = list(dict.fromkeys(n for r in records for n in r))
    numeric = {
        n: all(isinstance(r.get(n), (int, float)) and not isinstance(r.get(n), bool) for r in records) for n in names
    }
    columns = tuple(Column(title=field_words(n, 0.0)[0], numeric=numeric[n]) for n in names)
    rows = tuple(Row(cells=tuple(Cell(text=field_words(n, r.get(n))[1]) for n in names)) for r in records)
    return Table(caption=caption, columns=columns, rows=rows)


def _is_rows(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(v, Mapping) for v in value)
