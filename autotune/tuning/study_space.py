"""The plans that a study is about."""

from __future__ import annotations

from dataclasses import replace

from autotune.scoring.stage_split import balanced_splits
from autotune.space import Space, enumerate_space
from autotune.study import Study, cluster_choices, on_cluster


def study_space(study: Study) -> Space:
    """Every plan of a study with one kind of replica. Raises `InputError` as `enumerate_space`."""
    if study.axes.disaggregated == "only":
        return Space(enumerated=0, rejected={}, candidates=())
    spaces = []
    for cluster in cluster_choices(study):
        found = enumerate_space(
            study.arch,
            gpus=cluster.gpus,
            engine=study.engine,
            search=study.search,
            version=study.engine_version,
            drafts=study.axes.speculative is not None,
        )
        own = on_cluster(study, cluster)
        name = None if cluster.gpu.name == study.cluster.gpu.name else cluster.gpu.name
        splits = balanced_splits(own, found.candidates) if study.axes.balanced_stages else ()
        spaces.append(
            Space(
                enumerated=found.enumerated + len(splits),
                rejected=found.rejected,
                candidates=tuple(replace(c, gpu=name) for c in (*found.candidates, *splits)),
            )
        )
    rules = dict.fromkeys(rule for s in spaces for rule in s.rejected)
    return Space(
        enumerated=sum(s.enumerated for s in spaces),
        rejected={rule: sum(s.rejected.get(rule, 0) for s in spaces) for rule in rules},
        candidates=tuple(c for s in spaces for c in s.candidates),
    )


def covered(study: Study, candidates: int) -> bool:
    """Whether a study scores all of so many plans; a sampler chooses among more."""
    budget = study.search.trials
    return candidates <= study.search.exhaustive_limit and (budget is None or budget >= candidates)
