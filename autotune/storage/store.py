"""A scored plan as a study keeps it, and the interface of what keeps it."""

from __future__ import annotations

import math
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotune.storage.claims import BEAT_EVERY_S
from costmodel.errors import InputError

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One scored plan, as the study keeps it; for numbers that are not finite see `__post_init__`."""

    key: str
    """Identity of the candidate (plan and knobs) within its study; stored once, whoever writes it."""
    params: Mapping[str, int | float | str]
    """What was decided, by the names of `autotune.storage.optuna_trials.PARAMS`."""
    values: tuple[float, ...]
    """Objective values, one per direction. If any is not finite, the trial is PRUNED and has none."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """Violation code -> excess in the constraint's unit; feasible iff every one is <= 0."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """Metrics, plan string, breakdown and the like: JSON content."""

    def __post_init__(self) -> None:
        """Bring numbers to what JSON, and so every storage and dashboard, can hold.

        An infinite excess becomes the largest float; NaN and infinity in `attrs` become None; values that are
        not all finite become none at all.

        Raises:
            ValueError: a NaN excess, which would say neither feasible nor infeasible.
        """
        if any(math.isnan(excess) for excess in self.constraints.values()):
            raise ValueError(f"a constraint's excess must be a number, got {dict(self.constraints)!r} of {self.key!r}")
        most = sys.float_info.max
        bounded = {code: float(min(max(excess, -most), most)) for code, excess in self.constraints.items()}
        values = tuple(float(value) for value in self.values)
        object.__setattr__(self, "constraints", bounded)
        object.__setattr__(self, "values", values if all(map(math.isfinite, values)) else ())
        object.__setattr__(self, "attrs", finite(dict(self.attrs)))
        object.__setattr__(self, "params", dict(self.params))

    @property
    def feasible(self) -> bool:
        """Whether every constraint holds."""
        return all(excess <= 0.0 for excess in self.constraints.values())


def finite(value: Any) -> Any:
    """JSON content with None where a number is not finite; tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value) if _all_finite_numbers(value) else [finite(item) for item in value]
    return value


def _all_finite_numbers(values: Sequence[Any]) -> bool:
    """Whether nothing but finite numbers is in it: then their sum is one, unless it overflows."""
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False


class Store(ABC):
    """The trials of one study in an Optuna storage. A trial appears whole: none is ever RUNNING.

    A store is a queue as well: workers `claim` plans that nobody has stored or is scoring (`autotune.storage.claims`).
    """

    name: str
    """Name of the Optuna study: the study's name and the beginning of its fingerprint."""
    location: str
    """File or URL, as shown to people: without a password."""
    one_machine: bool
    """Whether all workers must run on one machine."""
    other_hosts: frozenset[str] = frozenset()
    """Other machines whose workers were at work when this one last claimed."""

    @abstractmethod
    def claim(self, keys: Iterable[str], most: int) -> tuple[str, ...]:
        """Take up to `most` of `keys` to score: the first that are not stored and not with a living worker.

        What this store claimed before and did not add is given back. In the same step, claims of dead workers
        are taken off. An empty claim means that the rest is stored, or with others (see `known_keys`).

        Raises:
            InputError: as `add`.
        """

    @abstractmethod
    def beat(self) -> None:
        """Give a sign of life, so that no other worker takes over what this one claimed.

        Raises:
            InputError: as `add`.
        """

    @contextmanager
    def alive(self, every_s: float = BEAT_EVERY_S) -> Generator[None, None, None]:
        """Give signs of life from a thread while the block runs. One that fails is left out: the next may not."""
        done = threading.Event()

        def beats() -> None:
            while not done.wait(every_s):
                with suppress(InputError):
                    self.beat()

        thread = threading.Thread(target=beats, name="autotune-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @abstractmethod
    def known_keys(self) -> Set[str]:
        """Keys of all trials stored by now, by any process: a set that grows with later calls.

        Raises:
            InputError: the storage cannot be read.
        """

    @abstractmethod
    def add(self, trials: Sequence[TrialRecord]) -> int:
        """Write those trials whose key is not stored yet, each whole or not at all; their number.

        Keys are read again inside the storage's lock, so two writers never store one twice.

        Raises:
            InputError: the storage is locked for longer than the timeout, read-only, full or damaged.
        """

    @abstractmethod
    def records(self) -> list[TrialRecord]:
        """All trials in the order of their numbers.

        Raises:
            InputError: the storage cannot be read.
        """

    @abstractmethod
    def optuna_study(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """The Optuna study: for samplers, `optuna.visualization`, `best_trial`.

        `best_trial` is the best feasible trial; Optuna raises ValueError where there is none.
        """

    def best(self) -> TrialRecord | None:
        """The best feasible trial by the first objective; None where none is (Optuna 5 raises then)."""
        feasible = [r for r in self.records() if r.feasible and r.values]
        if not feasible:
            return None
        maximize = self.directions[0] == "maximize"
        return (max if maximize else min)(feasible, key=lambda record: record.values[0])

    @property
    @abstractmethod
    def directions(self) -> tuple[str, ...]:
        """`maximize` or `minimize`, one per objective."""
