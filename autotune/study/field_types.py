"""What the tables of a study file are made of: dataclasses that pydantic reads strictly and in SI units.

A table is the value that a study keeps. Reading it checks every field and converts it once, by its annotation; making
or replacing one in code checks nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    Tag,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from autotune.engines import ANY, ENGINES, listed
from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES


@dataclass(frozen=True, slots=True)
class _Name:
    """Validates like a `Literal` of the names."""

    more: tuple[str, ...] = ()
    """Words that the field takes beside them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [*ENGINES, *self.more], "type": "string"}

    def _checked(self, value: Any) -> str:
        known = (*ENGINES, *self.more)
        if isinstance(value, str) and value in known:
            return value
        raise PydanticKnownError("literal_error", {"expected": listed([repr(name) for name in known], "or")})


EngineName = Annotated[str, _Name()]
EngineOrAny = Annotated[str, _Name((ANY,))]


TABLE = ConfigDict(extra="forbid", allow_inf_nan=False)
"""No unknown fields, no NaN; numbers and booleans are strict by their own types."""
MAX_GPUS = 1_000_000
MAX_TOKENS = MAX_CONCURRENCY = 100_000_000
MAX_CHOICES = 1_000
MAX_LOCAL_CHOICES = 16
"""Each is a search of its own."""

Whole = Annotated[int, Strict()]
Truth = Annotated[bool, Strict()]
Real = Annotated[float, Strict()]
Positive = Annotated[Real, Field(gt=0, le=1e9)]
NotNegative = Annotated[Real, Field(ge=0, le=1e9)]
Fraction = Annotated[Real, Field(gt=0, le=1)]
Share = Annotated[Real, Field(ge=0, le=1)]
PositiveMs = Annotated[Positive, AfterValidator(lambda ms: ms / 1e3)]
NotNegativeMs = Annotated[NotNegative, AfterValidator(lambda ms: ms / 1e3)]
PositiveHours = Annotated[Positive, AfterValidator(lambda hours: hours * 3600.0)]
NotNegativeHours = Annotated[NotNegative, AfterValidator(lambda hours: hours * 3600.0)]
GbPerS = Annotated[Positive, AfterValidator(lambda gb_per_s: gb_per_s * 1e9)]
Gpus = Annotated[Whole, Field(ge=1, le=MAX_GPUS)]


def _counts(value: Any) -> Any:
    """A range as the list that it stands for; what is none is left for the schema to refuse."""
    if not isinstance(value, Mapping) or not {"min", "max"} <= set(value) <= {"min", "max", "step"}:
        return value
    least, most, step = value["min"], value["max"], value.get("step", value["min"])
    if not all(isinstance(n, int) and 0 < n <= MAX_GPUS for n in (least, most, step)) or least > most:
        return value
    return tuple(range(least, min(most, least + step * MAX_CHOICES) + 1, step))


GpuCounts = Annotated[tuple[Gpus, ...], BeforeValidator(_counts)]
NodeGpus = Annotated[Whole, Field(ge=1, le=100_000)]
Tokens = Annotated[Whole, Field(ge=1, le=MAX_TOKENS)]
StepTokens = Annotated[Whole, Field(ge=16, le=10_000_000)]
LocalTokens = Annotated[Whole, Field(ge=0, le=MAX_TOKENS)]
Requests = Annotated[Whole, Field(ge=1, le=MAX_CONCURRENCY)]
LogFile = Annotated[str, Field(min_length=1, max_length=4096)]
Option = Annotated[str, Field(min_length=1, max_length=500)]
GpuName = Annotated[str, Field(min_length=1, max_length=200)]
Distinct = AfterValidator(lambda values: tuple(sorted(set(values))))
"""Without repetitions, in a fixed order: the order in which a study lists its choices means nothing."""
Many = Field(min_length=1, max_length=MAX_CHOICES)
LocalChoices = Annotated[tuple[LocalTokens, ...], Field(min_length=1, max_length=MAX_LOCAL_CHOICES), Distinct]


def entry(
    description: str,
    default: Any = dataclasses.MISSING,
    *,
    key: str | None = None,
    assumed: str | Callable[[Any], str] | None = None,
    **limits: Any,
) -> Any:
    """A field of a table.

    Args:
        description: what it is, its unit in the file included.
        default: in the value's unit; none: the file must have it.
        key: its name in the file where it is another one, as the unit stands in it.
        assumed: what to say where it is left out: a text in which `{}` stands for the default, or a function of it.
        limits: as of `pydantic.Field`.
    """
    told: dict[str, Any] = {"description": description, **limits}
    told |= {} if key is None else {"validation_alias": key}
    told |= {} if assumed is None else {"assumed": assumed}
    if key is not None or assumed is not None or not isinstance(default, (bool, int, float, str)):
        # it is in another unit than the file's, or none of the file's values: the description says it
        told["json_schema_extra"] = lambda schema: schema.pop("default", None)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: default, metadata=told)
    return dataclasses.field(default=default, metadata=told)


_OF_A_SHARE = {
    "ttft": "time to first token of {} % of the requests",
    "tpot": "time per output token of a request of {} % of the requests",
    "itl": "gap between two tokens of a request of {} % of all gaps",
    "e2e": "time from arrival to the last token of {} % of the requests",
}


def percentile(latency: str, percent: int) -> Any:
    """A limit on a percentile of a latency, a field of a table."""
    said = _OF_A_SHARE[latency].format(percent)
    return entry(f"{said} at most, ms; simulated", None, key=f"{latency}_p{percent}_ms")


def _by_shape(otherwise: str, unlike: str) -> Discriminator:
    """Which arm of a union a value is meant for; the tags start with `~` so that paths can leave them out."""

    def arm(value: Any) -> str:
        found = "~table" if isinstance(value, dict) or dataclasses.is_dataclass(value) else "~plain"
        found = "~list" if isinstance(value, (list, tuple)) else found
        return otherwise if found == unlike else found

    return Discriminator(arm)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IntRange:
    """Whole numbers from `min` to `max`, both included."""

    min: int
    max: int
    average: float | None = None
    """Mean, where it is known (recorded traffic); None: uniform over the range."""

    @property
    def mean(self) -> float:
        """Mean of what lies in the range."""
        return (self.min + self.max) / 2.0 if self.average is None else self.average

    def around_mean(self, least: int = 1) -> tuple[int, int]:
        """Shortest and longest of lengths that are drawn uniformly and have this mean.

        The range itself where it is uniform; else the widest within it that its mean is the middle of, with nothing
        under `least` where the mean is not.
        """
        if self.average is None:
            return self.min, self.max
        mean = max(round(self.average), 1)
        half = max(min(mean - max(self.min, least), self.max - mean), 0)
        return mean - half, mean + half

    def times(self, factor: float) -> IntRange:
        """The range stretched, its ends whole numbers of at least 1."""
        return IntRange(
            min=max(round(self.min * factor), 1),
            max=max(round(self.max * factor), 1),
            average=None if self.average is None else max(self.average * factor, 1.0),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TokenRange:
    """Uniform between two lengths."""

    __pydantic_config__ = TABLE
    min: Tokens = entry("shortest, tokens")
    max: Tokens = entry("longest, tokens")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalTable:
    """Arrivals with gaps of a given variation."""

    __pydantic_config__ = TABLE
    cv: Annotated[NotNegative, Field(le=20)] = entry(
        "coefficient of variation of the gaps between arrivals: 0 for equal ones, 1 for Poisson, more for bursts"
    )


ARRIVAL_CV = {"poisson": 1.0, "constant": 0.0}


def _arrival_cv(given: str | ArrivalTable | float) -> float:
    if isinstance(given, (int, float)):
        return float(given)
    return ARRIVAL_CV[given] if isinstance(given, str) else given.cv


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyRange:
    """Any number of requests in flight between two."""

    __pydantic_config__ = TABLE
    min: Requests = entry("fewest requests in flight over all replicas")
    max: Requests = entry("most requests in flight over all replicas")


def _range(given: int | TokenRange | ConcurrencyRange) -> IntRange:
    """A number is the range that holds only it."""
    return IntRange(min=given, max=given) if isinstance(given, int) else IntRange(min=given.min, max=given.max)


def _choices(given: tuple[int, ...] | ConcurrencyRange) -> tuple[int, ...] | IntRange:
    return tuple(sorted(set(given))) if isinstance(given, tuple) else _range(given)


if TYPE_CHECKING:  # what a field holds once it is read
    ArrivalCv: TypeAlias = float
    Lengths: TypeAlias = IntRange
    Concurrency: TypeAlias = tuple[int, ...] | IntRange
    NameOrTable: TypeAlias = str | Mapping[str, Any]
    WeightDtype: TypeAlias = str
    KvDtype: TypeAlias = str
    WeightDtypes: TypeAlias = tuple[str | None, ...]
    KvDtypes: TypeAlias = tuple[str | None, ...]
else:
    ArrivalCv = Annotated[
        Annotated[Literal[tuple(ARRIVAL_CV)], Tag("~plain")] | Annotated[ArrivalTable, Tag("~table")],
        _by_shape("~plain", unlike="~list"),
        AfterValidator(_arrival_cv),
    ]
    Lengths = Annotated[
        Annotated[Tokens, Tag("~plain")] | Annotated[TokenRange, Tag("~table")],
        _by_shape("~plain", unlike="~list"),
        AfterValidator(_range),
    ]
    Concurrency = Annotated[
        Annotated[tuple[Requests, ...], Field(min_length=1, max_length=MAX_CHOICES), Tag("~list")]
        | Annotated[ConcurrencyRange, Tag("~table")],
        _by_shape("~list", unlike="~plain"),
        AfterValidator(_choices),
    ]
    NameOrTable = Annotated[
        Annotated[str, Field(min_length=1, max_length=4096), Tag("~plain")] | Annotated[dict[str, Any], Tag("~table")],
        _by_shape("~plain", unlike="~list"),
    ]
    # one list of dtypes, in costmodel.dtypes
    WeightDtype = Literal[tuple(BYTES_PER_WEIGHT)]
    KvDtype = Literal[tuple(KV_BYTES)]
    WeightDtypes = Annotated[tuple[WeightDtype, ...], Field(min_length=1), Distinct]
    KvDtypes = Annotated[tuple[KvDtype, ...], Field(min_length=1), Distinct]


def key_of(field: dataclasses.Field[Any]) -> str:
    """The field's name in the file."""
    return str(field.metadata.get("validation_alias", field.name))


def assumptions(section: str, value: Any, given: Mapping[str, Any], skipped: Container[str] = ()) -> list[str]:
    """A sentence for each field of a table that its author left out and whose default is said.

    Args:
        section: name of the table.
        value: the table as it was read, what it left open filled in.
        given: the table as it stands in the file.
        skipped: names of fields whose defaults mean nothing in this study.
    """
    found = []
    for field in dataclasses.fields(value):
        text, filled = field.metadata.get("assumed"), getattr(value, field.name)
        if text is not None and key_of(field) not in given and field.name not in skipped:
            said = text.format(filled) if isinstance(text, str) else text(filled)
            found.append(f"{section}.{key_of(field)} not given: {said}")
    return found
