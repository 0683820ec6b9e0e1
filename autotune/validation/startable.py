"""Measured runs whose layout no engine starts: no run of theirs can have been measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autotune.space import violations
from costmodel.errors import InputError, Problem
from costmodel.estimate.batch import PlanEntry

MOST_NAMED = 10
"""Runs of one layout that are named; of more it is said how many."""


def require_startable(runs: Iterable[tuple[str, PlanEntry]], path: Path) -> None:
    """Hold the layouts of runs against the rules of their engines.

    A rule counts that holds in the version of the run and in the newest that is known: what versions changed is not
    known of each of them.

    Args:
        runs: each with its name; where it has two pools, once for each.
        path: the file that they stand in.

    Raises:
        InputError: every layout that breaks a rule, with the rule and the runs that have it.
    """
    found: dict[tuple[object, ...], tuple[str, ...]] = {}
    named: dict[str, list[str]] = {}
    for name, entry in runs:
        kind = id(entry.arch), entry.engine.name, entry.engine_version, entry.layout
        if kind not in found:
            found[kind] = _broken(entry)
        for text in found[kind]:
            named.setdefault(text, []).append(name)
    if named:
        raise InputError(Problem(path=str(path), message=f"{text}: {_listed(names)}") for text, names in named.items())


def _broken(entry: PlanEntry) -> tuple[str, ...]:
    arch, engine, layout = entry.arch, entry.engine.name, entry.layout
    own = {v.rule for v in violations(arch, engine, layout, entry.engine_version)}
    return tuple(
        f"{engine} starts no such layout ({v.message})" for v in violations(arch, engine, layout) if v.rule in own
    )


def _listed(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{'runs' if len(names) > 1 else 'run'} {', '.join(names[:MOST_NAMED])}{more}"
