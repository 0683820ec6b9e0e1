"""`python -m tools.audit [--strict]`: the pinned dependencies against the advisories that PyPI publishes, by pip-audit.

It fails where an advisory applies. What cannot be looked up is counted, and fails with `--strict` alone: CI also runs
where PyPI cannot be reached, and an audit that says nothing is told from one that found nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
WORDS = ("pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json", "-r")
MOST_S = 120.0
"""What a look-up may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What is known of the packages of one file."""

    advisories: tuple[str, ...]
    """`name version: advisory` of each that applies."""
    looked_up: int
    unknown: int
    """Packages that could not be looked up."""

    @classmethod
    def of(cls, report: dict[str, Any]) -> Audit:
        """From what pip-audit writes as JSON."""
        packages = report["dependencies"]
        known = [package for package in packages if "skip_reason" not in package]
        return cls(
            advisories=tuple(f"{p['name']} {p['version']}: {found['id']}" for p in known for found in p["vulns"]),
            looked_up=len(known),
            unknown=len(packages) - len(known),
        )

    def fails(self, *, strict: bool) -> bool:
        """Whether an advisory applies or, with `strict`, one may."""
        return bool(self.advisories) or (strict and self.unknown > 0)


def audited(lock: Path) -> Audit | None:
    """What pip-audit finds for a lock file; None where it could not be fetched or said nothing."""
    words = [str(Path(sys.executable).with_name("uvx")), "--quiet", *WORDS, str(lock)]
    try:
        done = subprocess.run(  # noqa: S603  # our own words
            words, capture_output=True, text=True, timeout=MOST_S, check=False
        )
        return Audit.of(json.loads(done.stdout))
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return None


def main() -> int:
    """1 where an advisory applies or, with `--strict`, could not be looked up."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where a package cannot be looked up")
    strict = parser.parse_args().strict
    wrong = False
    for lock in LOCKS:
        found = audited(ROOT / lock)
        if found is None:
            click.echo(f"{lock}: not looked up, as pip-audit or PyPI cannot be reached")
            wrong |= strict
            continue
        for advisory in found.advisories:
            click.echo(f"{lock}: {advisory}")
        click.echo(
            f"{lock}: {len(found.advisories)} advisories for {found.looked_up} packages; {found.unknown} not looked up"
        )
        wrong |= found.fails(strict=strict)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
