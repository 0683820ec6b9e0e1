"""`python -m tools.engines.best`: the best plans of 48 studies, exported and read by the engines in `.engines`.

Four models, three sizes of cluster and four kinds of limits. Each best plan, of a disaggregated one both pools, is held
against the rules of its engine's classes, written out by the export, and read by the engine's own parser and
validation. Prints each that cannot be built and how many those are; exits with 1 where any is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.launch.export import make_export
from autotune.launch.plan import LaunchPlan
from autotune.launch.pools.make import make_pool_launch
from autotune.launch.service import LaunchOptions
from autotune.space import violations
from autotune.space.pool_plan import ROLES
from autotune.study import Study, study_from_document
from autotune.tuning import PlanResult, tune
from costmodel.errors import InputError
from tools.engines.__main__ import installed, read
from tools.engines.cases import MODELS, Case, case_of

SIZES = (16, 32, 64)
LIMITS: dict[str, dict[str, Any]] = {
    "none": {},
    "TPOT": {"tpot_ms": 30.0},
    "TTFT": {"ttft_ms": 1500.0},
    "both": {"tpot_ms": 50.0, "ttft_ms": 3000.0},
}


def studies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and document of each."""
    for model in MODELS:
        for gpus in SIZES:
            for name, limits in LIMITS.items():
                yield (
                    f"{model}, {gpus} GPUs, limits: {name}",
                    {
                        "model": model,
                        "cluster": {"gpus": gpus, "gpu": "h200"},
                        "workload": {"isl": 2000, "osl": 500, "concurrency": 4 * gpus},
                        "constraints": limits,
                    },
                )


def check(engine: str) -> tuple[int, int, list[str]]:
    """How many studies there are, how many have a plan, and what cannot be built."""
    version = installed(engine)
    cases: list[Case] = []
    problems: list[str] = []
    count = exported = 0
    for name, document in studies():
        count += 1
        study = study_from_document({**document, "engine": engine, "engine_version": version}, Path("best.toml"))
        ranked = tune(study).ranked
        if not ranked:
            continue
        pools = ranked[0].pools
        layouts = [(None, ranked[0].layout)] if pools is None else [(r, getattr(pools, r).layout) for r in ROLES]
        for role, layout in layouts:
            broken = violations(study.arch, engine, layout, version, role)
            problems += [f"{name}: {ranked[0].plan}: {v.rule}: {v.message}" for v in broken]
        try:
            plans = _exported(study, ranked[0], LaunchOptions(version=version))
        except InputError as error:
            problems.append(f"{name}: {ranked[0].plan}: {error}")
            continue
        cases += [case_of(f"{name}: {ranked[0].plan}{role}", document["model"], plan) for role, plan in plans.items()]
        exported += 1
    for case, verdict in zip(cases, read(engine, cases), strict=True):
        if verdict["error"] is not None:
            problems.append(f"{case.id}: {verdict['error'][:400]}")
        elif verdict["seen"]["gpus"] != case.gpus:
            problems.append(f"{case.id}: {verdict['seen']['gpus']} GPUs a server, by our reading {case.gpus}")
    return count, exported, problems


def _exported(study: Study, best: PlanResult, asked: LaunchOptions) -> dict[str, LaunchPlan]:
    """The servers of a plan, those of a disaggregated one by role."""
    if best.pools is None:
        return {"": make_export(study, best, asked=asked)}
    both = make_pool_launch(study, best, asked=asked, assumptions=(), usual_version=None)
    return {f", {role}": plan for role, plan in both.pools.items()}


def main() -> None:
    """Every engine, or those that are named."""
    failed = False
    for engine in sys.argv[1:] or ("vllm", "sglang"):
        count, read_back, problems = check(engine)
        print("\n".join(problems), end="\n" if problems else "")  # noqa: T201
        print(f"{engine}: {len(problems)} of {count} best plans cannot be built; {read_back} were read")  # noqa: T201
        failed |= bool(problems)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
