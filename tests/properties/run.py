"""One random study, or one known case, against the statements."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.scoring.best_knobs import candidate_grid, score
from autotune.study import Study
from autotune.tuning import tune
from autotune.tuning.answer_study import place, score_plan
from autotune.tuning.study_space import study_space
from costmodel.errors import InputError
from tests.properties.given import Given
from tests.properties.statements import COSTLY, STATEMENTS, better_gpu, chosen, load_losses, no_worse
from tests.properties.studies import random_document, study_of
from tests.properties.wider import EVERY_POOLED, QUICK, pooled, simulated, with_local_prompts

WIDER_EVERY, WIDER_EVERY_QUICK = 4, 64
"""Of so many seeds one is looked at for pools and percentiles too, which take seconds."""
LOCAL_PLANS = 1
"""Plans whose decode pool prefills some prompts that are looked at, for as many studies again."""
Violations = list[tuple[str, str]]


def violations_of(seed: int, plans: int, *, quick: bool = False, only: str | None = None) -> Violations | None:
    """Statements that a random study violates, and where; None: it has no plan, or is no study.

    `quick`: of the costly statements one by turns, for half of the seeds; `only`: one statement, of the best plan with
    pools if it says so.
    """
    rng = random.Random(seed)  # noqa: S311  # made-up studies
    try:
        study = study_of(random_document(rng))
    except InputError:
        return None
    candidates = chosen(rng, study_space(study).candidates, plans)
    if not candidates:
        return None
    results = score(study, candidates)
    given = Given(study=study, candidates=candidates, plans=results)
    if only is not None:
        name = only.removeprefix("pools, ")
        return list(pooled(study, (name,), 1)) if name != only else [(name, text) for text in STATEMENTS[name](given)]
    left_out = {name for turn, name in enumerate(COSTLY) if quick and turn != seed % (2 * len(COSTLY))}
    asked = {name: holds for name, holds in STATEMENTS.items() if name not in left_out}
    out = [(name, text) for name, holds in asked.items() for text in holds(given)]
    wider = WIDER_EVERY_QUICK if quick else WIDER_EVERY
    if seed % wider == 1:
        out += [*pooled(study, QUICK if quick else EVERY_POOLED), *simulated(rng, study, results)]
    if seed % wider == wider // 2 and (own := with_local_prompts(rng, study)) is not None:
        out += pooled(own, QUICK if quick else EVERY_POOLED, LOCAL_PLANS)
    return out


def with_floors(rng: random.Random, study: Study) -> Study:
    """A random study with a floor of the kinds that random studies do not have, one in five each."""
    floors = ("min_total_tokens_per_s_per_gpu", "min_stage_tokens_per_s_per_gpu")
    some = {name: 10 ** rng.uniform(0.0, 3.0) for name in floors if rng.random() < 0.2}
    return replace(study, constraints=replace(study.constraints, **some))


def solved_loads(first: int, plans: int) -> Iterator[tuple[int, str, float, Study]]:
    """Seed, plan, loss (`load_losses`) and study of so many plans, one of each random study whose load is solved."""
    seed, found = first, 0
    while found < plans:
        rng = random.Random(seed)  # noqa: S311  # made-up studies
        try:
            study = with_floors(rng, study_of(random_document(rng)))
        except InputError:
            seed += 1
            continue
        candidates = chosen(rng, study_space(study).candidates, 1)
        grid = candidate_grid(study, candidates)[0] if candidates else None
        for name, loss in load_losses(grid, [0], every=1000) if grid is not None else ():
            found += 1
            yield seed, name, loss, study
        seed += 1


def cases_of(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, detail and study of each line; paths of models are relative to the folder above the file's."""
    for line in path.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        document = case["doc"]
        if document["model"].startswith("../shared/"):
            file = path.resolve().parent.parent / document["model"].removeprefix("../shared/")
            name = file.name.removesuffix("_config.json").replace("--", "/")
            document["model"] = str(file) if file.exists() else name
        yield case["kind"], case["detail"], document


def case_holds(kind: str, detail: str, document: dict[str, Any]) -> str | None:
    """What is still wrong with a known violation; None: nothing."""
    study = study_of(document)
    result = tune(study)
    plans = [*result.ranked, *result.infeasible]
    if kind.startswith("better hardware"):
        field = kind.rpartition(": ")[2]
        # a floor of utilisation is broken by hardware that does the same in less time, and rightly so
        study = replace(study, constraints=replace(study.constraints, min_gpu_util_frac=None))
        own = replace(study.cluster.gpu, base=study.cluster.gpu.measured_as)
        base, other = (replace(study, cluster=replace(study.cluster, gpu=g)) for g in (own, better_gpu(own, field)))
        before = tune(base)
        single = [p for p in (*before.ranked, *before.infeasible) if p.pools is None]
        found = list(no_worse(other, single, score(other, [p.candidate for p in single])))
        best = [t.ranked[:1] for t in (before, tune(other))]
        if best[0] and (not best[1] or list(no_worse(other, best[0], best[1]))):
            found.append(f"the best is worse: {best[0][0].plan}")
        return found[0] + f" ({len(found)})" if found else None
    if kind.startswith("relaxed limit"):
        name = kind.rpartition(": ")[2].replace("_ms", "_s")
        looser = replace(study.constraints, **{name: getattr(study.constraints, name) * 1.5})
        other = replace(study, constraints=looser)
        again = {p.plan: p for p in (lambda r: (*r.ranked, *r.infeasible))(tune(other))}
        missing = [p.candidate for p in plans if p.plan not in again and p.pools is None]
        again |= {p.plan: p for p in score(other, missing)}
        found = list(no_worse(other, plans, [again[p.plan] for p in plans if p.plan in again]))
        return found[0] if found else None
    if kind.startswith("baseline"):
        return _baseline(study, detail)
    for statement in ("shares", "tokens", "flops", "bytes_held", "bytes_read", "intervals", "margins"):
        if text := next(iter(STATEMENTS[statement](Given(study=study, candidates=[], plans=plans))), None):
            return f"{statement}: {text}"
    return None


def _baseline(study: Study, detail: str) -> str | None:
    """Every plan alone and in the ranking, those of the case first."""
    result = tune(study)
    for number, plan in enumerate(result.ranked, start=1):
        if number > 5 and plan.plan not in detail:
            continue
        named = score_plan(study, plan.plan).result
        if named is None or named.metrics != plan.metrics:
            differ = [] if named is None else [m for m in plan.metrics if named.metrics[m] != plan.metrics[m]]
            return f"{plan.plan} alone: {differ}"
        if place(study, named, result.ranked) != number:
            return f"{plan.plan}: rank {place(study, named, result.ranked)} alone, {number} in the ranking"
    return None
