"""What is right of a case, by the kind of its input: a function per kind, which says in words what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.launch.reading.import_plan import import_plan
from autotune.space import enumerate_space, parse_plan, resolve
from autotune.study import load_study
from autotune.traffic.read import read_traffic
from autotune.validation.bench import read_results
from costmodel.arch import Arch, active_params, kv_bytes_per_token, read_config_file, total_params, weight_bytes
from costmodel.errors import InputError
from tests.studies import FOLDER

DAY_S = 86400.0
"""The window that `retune` looks at unless it is told otherwise."""
MEASURES: Mapping[str, Callable[[Arch], float]] = {
    "weight_gb": lambda arch: weight_bytes(arch) / 1e9,
    "params_b": lambda arch: total_params(arch) / 1e9,
    "active_b": lambda arch: active_params(arch) / 1e9,
    "kv_bytes_per_token": kv_bytes_per_token,
}
BENCHMARKED = FOLDER / "llama-70b-16xh100.toml"
"""The study of which benchmark results are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One folder of the cases."""

    name: str
    folder: Path
    file: Path
    check: str
    expect: Mapping[str, Any]


def cases(folder: Path) -> Iterator[Case]:
    """Every case in a folder, by name."""
    for path in sorted(folder.glob("*/expected.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        yield Case(
            name=path.parent.name,
            folder=path.parent,
            file=path.parent / content["file"],
            check=content["check"],
            expect=content["expect"],
        )


def wrong(case: Case) -> str | None:
    """What is wrong with how a case is read; None: nothing."""
    named = case.expect.get("reads_or_names") or case.expect.get("refuses_or_asks")
    try:
        found = CHECKS[case.check](case)
    except InputError as error:
        said = str(error).replace(str(case.folder), "").replace(case.name, "")
        return None if named is not None and named.lower() in said.lower() else str(error)
    if "refuses_or_asks" in case.expect:
        return f"must be refused by naming {named!r}"
    return next((f"{name}: {value}" for name, value in found.items() if not _right(case.expect, name, value)), None)


def _right(expect: Mapping[str, Any], name: str, value: Any) -> bool:
    if name not in expect:
        return True
    wanted = expect[name]
    if isinstance(wanted, list):
        return isinstance(value, float | int) and abs(value / wanted[0] - 1.0) <= wanted[1]
    return bool(value == wanted)


def _model(case: Case) -> dict[str, Any]:
    arch = read_config_file(case.file)
    return {name: measure(arch) for name, measure in MEASURES.items()}


def _space(case: Case) -> dict[str, Any]:
    study = load_study(case.file)
    space = enumerate_space(study.arch, gpus=study.cluster.gpus, engine=study.engine)
    found: dict[str, Any] = {}
    for key in case.expect:
        plan = key.removesuffix("_valid")
        degree = int(plan.removeprefix("TP"))
        named = resolve(parse_plan(plan), arch=study.arch, gpus=degree, engine=study.engine)
        listed = any(c.layout.attn_tp == degree for c in space.candidates)
        found[key] = listed and not named.violations if case.expect[key] else listed or not named.violations
    return found


def _traffic(case: Case) -> dict[str, Any]:
    log = read_traffic(str(case.file), window_s=DAY_S)
    if log.refusal is not None:
        raise InputError.single(case.name, log.refusal)
    profile = log.profile()
    return {"rate_per_s": profile.rate.mean_per_s, "shared_prefix": profile.shared_prefix_frac}


def _bench(case: Case) -> dict[str, Any]:
    results = read_results(case.file, load_study(BENCHMARKED, ["cluster.gpus=4"]), "TP4")
    return {"concurrency": results[0].run.concurrency}


def _import(case: Case) -> dict[str, Any]:
    read = import_plan(str(case.file))
    degrees = read.plan.partition(":")[2].split("/")
    short = {"ATP": "TP", "EP": "EP"}
    layout = [f"{short[name]}{n}" for d in degrees for name in short if (n := d.removeprefix(name)).isdigit()]
    return {
        "gpus": read.gpus,
        "disaggregated": read.pools is not None,
        "no_unknown": not read.unknown,
        "layout": " ".join(layout),
    }


CHECKS: Mapping[str, Callable[[Case], dict[str, Any]]] = {
    "model": _model,
    "space": _space,
    "traffic": _traffic,
    "bench": _bench,
    "import": _import,
}
