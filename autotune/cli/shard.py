"""A share of a study's plans: `autotune tune --shard`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from autotune.report.text_blocks import Report
    from autotune.storage import Store
    from autotune.study import Study
    from autotune.tuning.executor import Executor
    from autotune.tuning.shard import Shard

SHARD = click.option(
    "--shard",
    metavar="I/N",
    help="Score the I-th of N shares of the plans into --storage and rank nothing, as 2/4: one share a machine. When "
    "all are in, tune with the same storage answers from it.",
)


def read_shard(text: str, *, no_storage: bool, other: str | None) -> Shard:
    """The share that is asked for.

    `other`: an option that is asked for and has no meaning for a share.

    Raises:
        InputError: not of the form I/N, or asked for with what it cannot go with.
    """
    from autotune.tuning.shard import Shard
    from costmodel.errors import InputError

    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise InputError.single("--shard", f"must read I/N, as 2/4, got {text!r}")
    if no_storage or other is not None:
        raise InputError.single(
            "--shard", f"must go without {other or '--no-storage'}: a share is stored, and not ranked"
        )
    return Shard(number=int(found[1]), of=int(found[2]))


def run_shard(
    study: Study, store: Store | None, shard: Shard, executor: Executor, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Score a share; what was done of it, as JSON content.

    Raises:
        InputError: there is no storage.
    """
    from autotune.tuning.shard import tune_shard
    from costmodel.errors import InputError

    if store is None:
        raise InputError.single("--shard", "needs --storage, where the other shares are: yours cannot be written")

    start = time.perf_counter()
    result = tune_shard(study, store, shard, executor=executor, progress=progress)
    counts = {name: value for name, value in asdict(result).items() if name != "shard"}
    return {
        "study": study.name,
        "shard": f"{shard.number}/{shard.of}",
        **counts,
        "storage": store.location,
        "elapsed_s": time.perf_counter() - start,
    }


def shard_report(document: dict[str, Any]) -> Report:
    """The same for people."""
    from autotune.report.text_blocks import Report

    d = document
    left = d["plans_in_all"] - d["stored"]
    rest = f"{left:,} plans are left to other shares" if left else "all plans are stored"
    return Report(
        headline=f"{d['study']}, share {d['shard']}: {d['plans']:,} plans, {d['scored_now']:,} of them scored now "
        f"in {d['elapsed_s']:.1f} s",
        lines=(
            f"{d['stored']:,} of {d['plans_in_all']:,} plans are in {d['storage']}: {rest}",
            "rank them with `autotune tune` and the same --storage when all are in",
        ),
    )
