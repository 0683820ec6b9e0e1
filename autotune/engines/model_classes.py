"""What engines' classes of models can and cannot do, by engine and version: a table (`model_classes.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autotune.engines.options import version_key
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
    source: str

    def holds(self, model_type: str, version: str | None) -> bool:
        """Whether it is true of a family in a version; None is the newest."""
        known = EVERY in self.families or model_type in self.families
        return known and (version is None or self.since is None or version_key(version) >= version_key(self.since))


@lru_cache(maxsize=1)
def facts() -> tuple[Fact, ...]:
    """Every row of the table."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["facts"]
    return tuple(_fact(row) for row in rows)


def _fact(row: Mapping[str, str | list[str]]) -> Fact:
    since = row.get("since")
    return Fact(
        feature=str(row["feature"]),
        engine=str(row["engine"]),
        families=frozenset(row["families"]),
        since=None if since is None else str(since),
        source=str(row["source"]),
    )


def has(engine: str, feature: str, arch: Arch, version: str | None) -> bool:
    """Whether an engine's class of a model has a feature in a version (None: the newest that is known).

    The text model within a model of several modalities counts as that model's family.
    """
    model_type = arch.model_type.removesuffix("_text")
    return any(f.engine == engine and f.feature == feature and f.holds(model_type, version) for f in facts())
