"""What a log does not say of itself and its reader may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from costmodel.errors import InputError

TIME_UNITS: Mapping[str, float] = MappingProxyType({"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9})
"""Spelling -> seconds."""
MAX_BAD_FRAC = 0.05
"""Share of unusable lines above which a log is not decided on."""
LEAST_COVER_FRAC = 0.001
"""Share of a window that its log has to cover, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How to read a log or metrics where they leave something open."""

    time_unit: str | None = None
    """Key of `TIME_UNITS`, of times that are numbers; None: recognised, or asked for."""
    block_tokens: int | None = None
    """Prompt tokens per entry of `hash_ids`; None: recognised."""
    max_bad_frac: float = MAX_BAD_FRAC
    least_cover_frac: float = LEAST_COVER_FRAC
    match: Mapping[str, str] = field(default_factory=dict)
    """Label or field -> the value that requests must have to count."""
    model: str | None = None
    """Name of the model in question: chosen where a source has several and `match` names none."""


AS_THEY_SAY = ReadOptions()
"""Nothing is said about a log but by the log."""


def read_options(
    *,
    time_unit: str | None = None,
    block_tokens: int | None = None,
    max_bad_frac: float = MAX_BAD_FRAC,
    least_cover_frac: float = LEAST_COVER_FRAC,
    match: tuple[str, ...] = (),
) -> ReadOptions:
    """Options as a command line has them.

    Raises:
        InputError: a share does not lie between 0 and 1, or a match is not NAME=VALUE.
    """
    for option, share in (("--max-bad", max_bad_frac), ("--min-cover", least_cover_frac)):
        if not 0.0 <= share <= 1.0:
            raise InputError.single(option, f"must be a share from 0 to 1, got {share:g}")
    wanted = {}
    for text in match:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError.single("--match", f"must read NAME=VALUE, as in model_name=my-model, got {text!r}")
        wanted[name.strip()] = value
    return ReadOptions(
        time_unit=time_unit,
        block_tokens=block_tokens,
        max_bad_frac=max_bad_frac,
        least_cover_frac=least_cover_frac,
        match=wanted,
    )


def same_model(name: str, other: str) -> bool:
    """Whether two names mean one model: the last part of a path, without case and punctuation, one within the other."""
    one, two = (
        "".join(c for c in text.rstrip("/").rpartition("/")[2].lower() if c.isalnum()) for text in (name, other)
    )
    return bool(one) and bool(two) and (one in two or two in one)


def chosen_model(found: list[str], wanted: str | None) -> str | None:
    """The one of several models that is wanted; None: none of them, or more than one."""
    fitting = [name for name in found if wanted is not None and same_model(name, wanted)]
    exact = [name for name in fitting if wanted is not None and name.rpartition("/")[2] == wanted.rpartition("/")[2]]
    fitting = exact or fitting
    return fitting[0] if len(fitting) == 1 else None
