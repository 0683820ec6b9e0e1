"""What engines cannot do with weights or a KV cache in some dtypes on some GPUs: a table (`dtypes.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autotune.engines.facts import holds_in, modelled
from costmodel.arch import Arch
from costmodel.arch.attention import GroupedQuery, Latent
from costmodel.arch.config.families import SINKS
from costmodel.dtypes import hardware_dtype, storage
from costmodel.hardware import Gpu

TABLE = Path(__file__).with_name("dtypes.toml")
MULTIPLIED_INT8 = "w8a8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where weights are read, experts' tokens are sent or a cache is kept."""

    arch: Arch
    """With the weights as they are stored."""
    gpu: Gpu
    pools: bool = False
    """Whether prompts are prefilled by one pool and decoded by another."""


def _is_latent(place: Place) -> bool:
    return any(isinstance(a, Latent) for a in place.arch.attentions)


def _has_heads_of_64(place: Place) -> bool:
    return any(isinstance(a, GroupedQuery) and int(a.head_dim) == 64 for a in place.arch.attentions)


def _has_weights_beside_fp8(place: Place) -> bool:
    dtypes = {dtype for group in place.arch.groups for _, dtype in group.block.dtypes}
    return {hardware_dtype(dtype) for dtype in dtypes} != {"fp8"}


_CONDITIONS: Mapping[str, tuple[Callable[[Place], bool], str]] = {
    "latent": (_is_latent, "of attention over a latent"),
    "no_latent": (lambda place: not _is_latent(place), ""),
    "heads_of_64": (_has_heads_of_64, "of heads of 64"),
    "sinks": (lambda place: place.arch.model_type.startswith(SINKS), "of attention with sinks"),
    "pools": (lambda place: place.pools, "that a pool hands to another"),
    "weights_not_fp8": (_has_weights_beside_fp8, "beside weights that are not FP8"),
}
"""What a fact may ask of a place, and how it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DtypeFact:
    """One row of the table."""

    feature: str
    engine: str
    dtypes: frozenset[str]
    gpus: tuple[str, ...]
    """Beginnings of generations; empty: all."""
    only: tuple[str, ...]
    """Keys of conditions that must all be true."""
    since: str | None
    until: str | None
    source: str

    def holds(self, place: Place, version: str | None) -> bool:
        """Whether it is true of a place in a version."""
        there = not self.gpus or place.gpu.generation.startswith(self.gpus)
        return (
            there
            and holds_in(version, self.since, self.until)
            and all(_CONDITIONS[name][0](place) for name in self.only)
        )

    def where(self, place: Place, version: str | None) -> str:
        """What it depends on, in words: empty, or beginning with a blank."""
        words = [said for name in self.only if (said := _CONDITIONS[name][1])]
        if self.gpus:
            words.append(f"on {place.gpu.generation} GPUs")
        if self.until is not None and version is not None:
            words.append(f"in {version}")
        return "".join(f" {word}" for word in words)


@lru_cache(maxsize=1)
def dtype_facts() -> tuple[DtypeFact, ...]:
    """Every row of the table."""
    return tuple(_fact(row) for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["facts"])


def _fact(row: Mapping[str, str | list[str]]) -> DtypeFact:
    def text(key: str) -> str | None:
        return str(row[key]) if key in row else None

    return DtypeFact(
        feature=str(row["feature"]),
        engine=str(row["engine"]),
        dtypes=frozenset(row["dtypes"]),
        gpus=tuple(row.get("gpus", ())),
        only=tuple(row.get("only", ())),
        since=text("since"),
        until=text("until"),
        source=str(row["source"]),
    )


def no_weights(engine: str, place: Place, dtype: str, version: str | None) -> str | None:
    """Where an engine reads no weights that are stored in a dtype, as `DtypeFact.where`; None: nothing says so."""
    families = {storage(dtype).base, *([MULTIPLIED_INT8] if hardware_dtype(dtype) == "int8" else [])}
    return _where("no_weights", engine, place, families, version)


def no_cache(engine: str, place: Place, dtype: str, version: str | None) -> str | None:
    """Where an engine keeps no KV cache in a dtype, as `DtypeFact.where`; None: nothing says so."""
    return _where("no_cache", engine, place, {dtype}, version)


def no_low_latency(engine: str, place: Place, dtype: str, version: str | None) -> str | None:
    """Where an engine has no low-latency exchange with experts in a dtype, as `DtypeFact.where`; None: unsaid."""
    return _where("no_low_latency", engine, place, {storage(dtype).base}, version)


def _where(feature: str, engine: str, place: Place, dtypes: set[str], version: str | None) -> str | None:
    version = modelled(engine, version)
    for fact in dtype_facts():
        if (fact.engine, fact.feature) == (engine, feature) and fact.dtypes & dtypes and fact.holds(place, version):
            return fact.where(place, version)
    return None
