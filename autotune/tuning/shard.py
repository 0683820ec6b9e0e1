"""A fixed share of a study's plans, for a machine that scores beside others into one storage.

Which share a plan belongs to follows from its name alone, so the machines need not know of one another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from autotune.disaggregated.tune_pools import disaggregated_plans
from autotune.scoring.plan_result import plan_key
from autotune.scoring.trial_record import Recorder
from autotune.storage import Store
from autotune.study import Study
from autotune.tuning.batches import keeper, score_missing
from autotune.tuning.executor import Executor
from autotune.tuning.study_space import covered, study_space
from costmodel.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One of several shares."""

    number: int
    """From 1 on."""
    of: int

    def __post_init__(self) -> None:
        """Raise `InputError` unless it is one of them."""
        if not 1 <= self.number <= self.of:
            raise InputError.single("--shard", f"must be i/n with 1 <= i <= n, got {self.number}/{self.of}")

    def has(self, key: str) -> bool:
        """Whether a plan is in this share."""
        digest = hashlib.sha256(key.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What a run did of its share."""

    shard: Shard
    plans: int
    """Plans of the share."""
    scored_now: int
    """Plans that this run scored; the others of its share were stored already."""
    stored: int
    """Plans of the whole study in the storage by now, whoever scored them."""
    plans_in_all: int
    """Plans of the whole study."""


def tune_shard(
    study: Study,
    store: Store,
    shard: Shard,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShardResult:
    """Score a share of a study's plans into a storage; nothing is ranked. The first share has the disaggregated plans.

    Without an `executor` this process scores; `progress` is called with (plans of the share done, plans of the share).

    Raises:
        InputError: the space is too large to be covered (shares have no common sampler), or the storage fails.
    """
    space = study_space(study)
    keys = [plan_key(c) for c in space.candidates]
    if not covered(study, len(keys)):
        message = (
            f"must be of a space that is covered whole, and this one of {len(keys):,} plans is sampled: raise "
            "search.exhaustive_limit (and search.trials), or tune without --shard"
        )
        raise InputError.single("--shard", message)
    recorder = Recorder.of(study, space.candidates)
    records = store.records()
    if shard.number == 1:
        disaggregated_plans(study, records, store, recorder)
    known = {record.key for record in records}
    mine = [(key, c) for key, c in zip(keys, space.candidates, strict=True) if shard.has(key)]
    missing = [c for key, c in mine if key not in known]
    before = len(mine) - len(missing)
    told = None if progress is None else lambda done: progress(before + done, len(mine))
    keep = keeper(store, recorder)
    scored = sum(
        len(results) for results, _ in score_missing(study, missing, executor or Executor(), keep=keep, progress=told)
    )
    return ShardResult(
        shard=shard,
        plans=len(mine),
        scored_now=scored,
        stored=len(store.known_keys() & set(keys)),
        plans_in_all=len(keys),
    )
