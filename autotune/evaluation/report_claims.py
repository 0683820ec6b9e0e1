"""Claims of a report, read from TOML: each names a quantity, a comparison and a figure."""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autotune.evaluation.values import CONFIRMED, REFUTED, UNDECIDABLE, ClaimVerdict
from autotune.text.numbers import number
from costmodel.errors import InputError, Problem
from costmodel.estimate.normal import p_below
from costmodel.files import read_file
from costmodel.plan.columns import Floats

MAX_CLAIMS_BYTES = 1_000_000
EXACT_FRAC = 0.005
"""`equals` allows for what a figure of three digits rounds away."""
ABOUT_FRAC = 0.1
SURE = 0.9
"""An estimate confirms or refutes what holds, or does not, with this probability."""

Figure = Annotated[float, Field(allow_inf_nan=False)]


class Claim(BaseModel):
    """One claim."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    claim: Annotated[str, Field(min_length=1, max_length=400)]
    """In the report's words."""
    quantity: Annotated[str, Field(min_length=1, max_length=100)]
    """What of the evaluation it is about: `autotune evaluate STUDY --json` lists them under `quantities`."""
    equals: Figure | int | str | bool | None = None
    about: Figure | int | None = None
    at_most: Figure | int | None = None
    below: Figure | int | None = None
    at_least: Figure | int | None = None
    above: Figure | int | None = None
    filled_in: Annotated[str, Field(max_length=400)] | None = None
    """Why agreement would prove nothing: the figure follows from what the study filled in to match it."""
    note: Annotated[str, Field(max_length=400)] | None = None
    """What to say beside the figure."""

    @model_validator(mode="after")
    def _one_comparison(self) -> Claim:
        given = [n for n in COMPARISONS if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"must hold exactly one of {', '.join(COMPARISONS)}, got {', '.join(given) or 'none'}")
        return self

    @property
    def comparison(self) -> str:
        """Name of the comparison."""
        return next(n for n in COMPARISONS if getattr(self, n) is not None)

    @property
    def figure(self) -> float | int | str | bool:
        """What the quantity is compared with."""
        found: float | int | str | bool = getattr(self, self.comparison)
        return found


class Claims(BaseModel):
    """A file of claims."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    source: Annotated[str, Field(max_length=400)] = ""
    """Where they were made."""
    claims: Annotated[list[Claim], Field(min_length=1, max_length=1000)]


COMPARISONS: Mapping[str, str] = {
    "equals": "",
    "about": "about ",
    "at_most": "≤ ",
    "below": "< ",
    "at_least": "≥ ",
    "above": "> ",
}
"""Field of a claim -> how it is written before the figure."""
_TESTS: Mapping[str, Callable[[float, float], bool]] = {
    "at_most": operator.le,
    "below": operator.lt,
    "at_least": operator.ge,
    "above": operator.gt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A figure of the evaluation that a claim can be about."""

    value: float | int | str | bool | None
    """None: it cannot be computed from what is given."""
    words: str
    """What it is, and what it rests on."""
    log_sd: float = 0.0
    """Of an estimate: standard deviation of log(measured / estimate)."""


def read_claims(path: Path) -> Claims:
    """Read a file of claims.

    Raises:
        InputError: not readable, not TOML, or not claims; every problem with its path.
    """
    try:
        content = tomllib.loads(read_file(path, MAX_CLAIMS_BYTES).decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError.single(str(path), f"is not TOML: {error}") from error
    try:
        return Claims.model_validate(content)
    except ValidationError as error:
        raise InputError(
            Problem(
                path="$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in e["loc"]),
                message=e["msg"].removeprefix("Value error, "),
            )
            for e in error.errors()
        ) from error


def judge(claims: Claims, quantities: Mapping[str, Quantity]) -> tuple[ClaimVerdict, ...]:
    """A verdict on every claim.

    Raises:
        InputError: a claim is about a quantity that there is none of, or compares text with a number.
    """
    problems = []
    for i, claim in enumerate(claims.claims):
        found = quantities.get(claim.quantity)
        if found is None:
            known = ", ".join(sorted(quantities))
            problems.append(Problem(path=f"$.claims[{i}].quantity", message=f"{claim.quantity!r} is none of {known}"))
        elif isinstance(found.value, str) != isinstance(claim.figure, str) and found.value is not None:
            problems.append(
                Problem(
                    path=f"$.claims[{i}].{claim.comparison}",
                    message=f"must be {'text' if isinstance(found.value, str) else 'a number'}, got {claim.figure!r}",
                )
            )
    if problems:
        raise InputError(problems)
    return tuple(_judged(claim, quantities[claim.quantity]) for claim in claims.claims)


def _judged(claim: Claim, found: Quantity) -> ClaimVerdict:
    claimed = claim.figure if claim.comparison == "equals" else f"{COMPARISONS[claim.comparison]}{_shown(claim.figure)}"
    words = found.words
    p = _p_holds(claim, found)
    if found.value is None:
        status, why = UNDECIDABLE, words
    elif p <= 1.0 - SURE:
        status, why = REFUTED, words
    elif claim.filled_in is not None:
        status, why = UNDECIDABLE, f"{words}; {claim.filled_in}"
    elif p >= SURE:
        status, why = CONFIRMED, words
    else:
        status, why = UNDECIDABLE, f"{words}; it holds with probability {p:.0%}"
    return ClaimVerdict(
        claim=claim.claim,
        status=status,
        claimed=claimed,
        computed=found.value,
        reason=why if claim.note is None else f"{why}; {claim.note}",
    )


def _p_holds(claim: Claim, found: Quantity) -> float:
    """Probability that the claim holds; 0 or 1 for what is no estimate."""
    value, claimed = found.value, claim.figure
    if value is None:
        return 0.5
    if isinstance(value, str) or isinstance(claimed, str):
        return float(value == claimed)
    if claim.comparison in ("equals", "about"):
        allowed = EXACT_FRAC if claim.comparison == "equals" else ABOUT_FRAC
        return _p_within(float(value), float(claimed), allowed, found.log_sd)
    if found.log_sd <= 0.0 or value <= 0.0 or claimed <= 0.0:
        return float(_TESTS[claim.comparison](float(value), float(claimed)))
    under = float(p_below(float(claimed), _array(value), _array(found.log_sd))[0])
    return under if claim.comparison in ("at_most", "below") else 1.0 - under


def _p_within(value: float, claimed: float, allowed_frac: float, log_sd: float) -> float:
    close = abs(value - claimed) <= allowed_frac * abs(claimed)
    if log_sd <= 0.0 or value <= 0.0 or claimed <= 0.0:
        return float(close)
    # an estimate is as good as equal where the figure lies inside its 80 % interval
    low, high = (p_below(claimed * (1.0 + side * allowed_frac), _array(value), _array(log_sd))[0] for side in (-1, 1))
    inside = low <= SURE and high >= 1.0 - SURE
    return 1.0 if close else 0.5 if inside else 0.0


def _array(value: float) -> Floats:
    return np.array([float(value)])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value, 4) if isinstance(value, (int, float)) else str(value)
