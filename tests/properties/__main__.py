"""`python -m tests.properties`: 5,000 random studies against every statement; `--cases FILE`: known violations anew;
`--loads 300`: the solved load of so many plans against every load."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import click

from autotune.scoring.limits import study_limits
from costmodel.errors import InputError
from tests.properties.given import REL
from tests.properties.run import case_holds, cases_of, solved_loads, violations_of


def main() -> int:
    """0 where nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties")
    parser.add_argument("--studies", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first study")
    parser.add_argument("--plans", type=int, default=10, help="plans of each study")
    parser.add_argument("--cases", type=Path, help="lines of JSON: kind, detail, and the study as doc")
    parser.add_argument("--loads", type=int, help="plans whose solved load is held against every other, instead")
    given = parser.parse_args()
    if given.cases is not None:
        return _cases(given.cases)
    if given.loads is not None:
        return _loads(given.first, given.loads)
    start, wrong, done = time.monotonic(), Counter[str](), 0
    for seed in range(given.first, given.first + given.studies):
        found = violations_of(seed, given.plans)
        done += found is not None
        for statement, text in found or ():
            wrong[statement] += 1
            click.echo(f"{seed} {statement}: {text[:400]}")
    click.echo(f"{done} studies with plans, {time.monotonic() - start:.0f} s, {sum(wrong.values())} violations")
    for statement, count in wrong.most_common():
        click.echo(f"  {statement}: {count}")
    return int(bool(wrong))


def _loads(first: int, plans: int) -> int:
    losses: list[float] = []
    under = Counter[str]()
    for seed, name, loss, study in solved_loads(first, plans):
        losses.append(loss)
        under.update(limit.code for limit in study_limits(study))
        under[f"{study.objective.direction} {study.objective.metric}"] += 1
        if loss > REL:
            click.echo(f"{seed} {name}: {loss:.3g}")
    missed = [loss for loss in losses if loss > REL]
    click.echo(f"{len(losses)} plans, {len(missed)} misses of the best load, worst loss {max(losses):.3g}")
    click.echo("under: " + ", ".join(f"{name} {count}" for name, count in sorted(under.items())))
    return int(bool(missed))


def _cases(path: Path) -> int:
    wrong = 0
    for number, (kind, detail, document) in enumerate(cases_of(path), start=1):
        try:
            text = case_holds(kind, detail, document)
        except InputError as error:  # a model that is not at hand, say
            click.echo(f"{number:3} unread {kind}: {str(error)[:300]}")
            continue
        wrong += text is not None
        click.echo(
            f"{number:3} {'right' if text is None else 'wrong'}  {kind}" + (f": {text[:300]}" if text else ""),
        )
    click.echo(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
