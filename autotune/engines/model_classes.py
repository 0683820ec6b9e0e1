"""What engines' classes of models can and cannot do, by engine and version: a table (`model_classes.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autotune.engines.facts import holds_in, modelled
from costmodel.arch import Arch

TABLE = Path(__file__).with_name("model_classes.toml")
EVERY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One row of the table: a feature that an engine's classes of some families have."""

    feature: str
    engine: str
    families: frozenset[str]
    """Values of `model_type`; `*` stands for every one."""
    since: str | None
    """First version that has it; None: every known one."""
    until: str | None
    """Last version that is known to have it; None: the newest."""
    source: str

    def holds(self, model_type: str, version: str | None) -> bool:
        """Whether it is true of a family in a version; None is the newest."""
        known = EVERY in self.families or model_type in self.families
        return known and holds_in(version, self.since, self.until)


@lru_cache(maxsize=1)
def facts() -> tuple[Fact, ...]:
    """Every row of the table."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["facts"]
    return tuple(_fact(row) for row in rows)


def _fact(row: Mapping[str, str | list[str]]) -> Fact:
    since, until = row.get("since"), row.get("until")
    return Fact(
        feature=str(row["feature"]),
        engine=str(row["engine"]),
        families=frozenset(row["families"]),
        since=None if since is None else str(since),
        until=None if until is None else str(until),
        source=str(row["source"]),
    )


def has(engine: str, feature: str, arch: Arch, version: str | None) -> bool:
    """Whether an engine's class of a model has a feature in a version (None: the newest that is known).

    The text model within a model of several modalities counts as that model's family.
    """
    return any(f.holds(_family(arch), version) for f in _of(engine, feature))


def lacks_class(engine: str, arch: Arch, version: str | None) -> bool:
    """Whether an engine is known to have no class for a model in a version; None: the newest whose options are known.

    An engine of which the table lists what it has (`class`) has no other. Of a model that says no `model_type` nothing
    is known.
    """
    listed, version = _of(engine, "class"), modelled(engine, version)
    family = _family(arch)
    if family and listed and not any(fact.holds(family, version) for fact in listed):
        return True
    return any(fact.holds(family, version) for fact in _of(engine, "no_class"))


def _family(arch: Arch) -> str:
    return arch.model_type.removesuffix("_text")


@lru_cache(maxsize=128)
def _of(engine: str, feature: str) -> tuple[Fact, ...]:
    return tuple(fact for fact in facts() if fact.engine == engine and fact.feature == feature)
