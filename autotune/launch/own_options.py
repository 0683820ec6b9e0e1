"""What a server that runs is started with, as the cost model prices it; and what of it no formula knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autotune.engines import ENGINES
from autotune.launch.limits import filled_by_free, filled_by_static
from autotune.study import Baseline, OwnOptions, Study, own_options
from autotune.tuning import score_baseline

if TYPE_CHECKING:
    from autotune.launch.reading.import_plan import Imported


@dataclass(frozen=True, slots=True, kw_only=True)
class AsStarted:
    """A plan in production with what its engine is started with."""

    baseline: Baseline
    said: tuple[str, ...]
    """How it was read, in plain sentences."""


def as_started(study: Study, imported: Imported, plan: str) -> AsStarted:
    """What was read, under the study: its options where they are not the study's.

    Args:
        study: whose options the candidates have.
        imported: what was read.
        plan: that of all servers.

    Raises:
        InputError: the plan has no reading on the study's GPUs.
    """
    started, pooled = imported.started, imported.pools is not None
    baseline = replace(imported.baseline(), plan=plan)
    said, not_priced = [], list(started.not_priced)
    speculates = study.axes.speculative is not None
    if started.drafts and speculates:
        said.append(f"{started.drafts}: scored as the study's table speculative says")
    elif started.drafts:
        not_priced.append(f"{started.drafts} (the study's table speculative does not say how many tokens are accepted)")
    filled = started.memory_fraction
    if filled is not None and not ENGINES[imported.engine].memory_is_of_everything:
        option = ENGINES[imported.engine].memory_options[-1]
        if pooled:
            not_priced.append(f"{option} {filled:g}")
            filled = None
        else:
            filled = _filled(study, baseline, filled, started.max_num_seqs)
    given = OwnOptions(
        gpu_memory_utilization=filled,
        max_num_seqs=None if pooled else started.max_num_seqs,
        cuda_graphs=started.cuda_graphs,
        speculative=bool(started.drafts) if speculates else None,
        not_priced=tuple(not_priced),
    )
    baseline = replace(baseline, engine_options=own_options(study, given))
    return AsStarted(baseline=baseline, said=tuple(said))


def _filled(study: Study, baseline: Baseline, fraction: float, seqs: int | None) -> float | None:
    """An engine's own share of memory, of what it is, as the study's `gpu_memory_utilization`; None: as the study's."""
    scored = score_baseline(replace(study, baseline=baseline))
    if scored is None or scored.result is None:
        return None
    convert = filled_by_free if ENGINES[scored.result.engine].traits.kv_fraction_is_of_free else filled_by_static
    return convert(study, scored.result, fraction, seqs)
