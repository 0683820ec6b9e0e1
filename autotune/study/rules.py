"""Rules between fields, on the raw document: so they report beside the fields' own problems."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from autotune.engines import ENGINES, prefills_no_prompts
from autotune.engines.facts import is_version
from autotune.metrics import GOODPUT
from autotune.study.sections import PERCENTILE_FIELDS, REQUEST_LATENCIES
from autotune.study.validation_messages import shown
from costmodel.arch import Arch
from costmodel.errors import Problem

LATER_TOKENS = ("tpot", "itl")
"""Latencies of tokens after the first."""
MAX_KNOBS = 100_000
"""Choices of knobs for one layout; they are evaluated together and take about 1 kB each."""


def between_fields(document: Mapping[str, Any]) -> list[Problem]:
    """Every broken rule; fields of the wrong type are left to the schema."""
    problems: list[Problem] = []
    workload, search = _table(document, "workload"), _table(document, "search")
    objective = _table(document, "objective")
    if "concurrency" in workload and "request_rate_per_s" in workload:
        problems.append(
            _problem(
                "workload",
                "must give `concurrency` (closed loop) or `request_rate_per_s` (open), not both, got "
                f"{workload['concurrency']!r} and {workload['request_rate_per_s']!r}",
            )
        )
    for fixed in ("concurrency", "request_rate_per_s"):
        if fixed in workload and "concurrency" in search:
            problems.append(
                _problem(
                    "search.concurrency",
                    f"must be left out where workload.{fixed} fixes the load, got {workload[fixed]!r}",
                )
            )
            break
    if "maximize" in objective and "minimize" in objective:
        problems.append(
            _problem("objective", "must give `maximize` or `minimize`, not both (`objective.minimize=` takes one back)")
        )
    for section, name in (("workload", "isl"), ("workload", "osl"), ("search", "concurrency")):
        problems += _ordered(f"{section}.{name}", _table(document, section).get(name))
    isl, longest = _most(workload.get("isl")), _number(workload.get("longest_prompt"))
    if isl is not None and longest is not None and longest < isl:
        message = f"must be at least the longest isl, got {longest} and isl {isl}"
        problems.append(_problem("workload.longest_prompt", message))
    problems += _later_tokens(document)
    problems += _percentiles(document)
    problems += _engines(document)
    problems += _knobs(search)
    problems += _speculative(document)
    problems += _local_prefill(document)
    return problems


def _later_tokens(document: Mapping[str, Any]) -> list[Problem]:
    """Where every output is one token there is none after the first, whose time could be limited or minimized."""
    constraints, objective = _table(document, "constraints"), _table(document, "objective")
    limits = ["tpot_ms", *(f"{name}_{share}_ms" for name, share in PERCENTILE_FIELDS if name in LATER_TOKENS)]
    given = [f"constraints.{name}" for name in limits if name in constraints]
    given += ["objective.minimize"] if objective.get("minimize") == "tpot_s" else []
    if not given or _most(_table(document, "workload").get("osl")) != 1:
        return []
    return [_problem("workload.osl", f"must be at least 2 for {' and '.join(given)}, of tokens after the first, got 1")]


def _percentiles(document: Mapping[str, Any]) -> list[Problem]:
    """Percentiles and goodput are of requests that come in some way, and are simulated."""
    constraints, workload = _table(document, "constraints"), _table(document, "workload")
    names = [f"{latency}_{share}_ms" for latency, share in PERCENTILE_FIELDS]
    given = [f"constraints.{name}" for name in (*names, "attainment_frac") if name in constraints]
    goodput = _table(document, "objective").get("maximize") == GOODPUT
    given += ["objective.maximize"] if goodput else []
    problems = []
    if given and not {"request_rate_per_s", "concurrency"} & workload.keys():
        message = "needs workload.request_rate_per_s or workload.concurrency: it is about requests under a load"
        problems.append(_problem(given[0], message))
    means = {f"{latency}_ms" for latency in REQUEST_LATENCIES}
    if "attainment_frac" in constraints and not means & constraints.keys():
        message = "needs ttft_ms, tpot_ms or e2e_ms: the share is of requests that keep them"
        problems.append(_problem("constraints.attainment_frac", message))
    bounds = means | {f"{latency}_{share}_ms" for latency, share in PERCENTILE_FIELDS if latency in REQUEST_LATENCIES}
    if goodput and not bounds & constraints.keys():
        message = f"needs ttft_ms, tpot_ms or e2e_ms in constraints: {GOODPUT} counts requests that keep them"
        problems.append(_problem("objective.maximize", message))
    if "sessions" in workload:
        if "request_rate_per_s" not in workload:
            problems.append(_problem("workload.sessions", "needs workload.request_rate_per_s"))
        said = [key for key in ("prefix_cache_hit_frac", "longest_prompt", "traffic") if key in workload]
        message = "must not be given with workload.sessions, from which it follows"
        problems += [_problem(f"workload.{key}", message) for key in said]
    if "arrivals" in workload and "request_rate_per_s" not in workload:
        problems.append(_problem("workload.arrivals", "needs workload.request_rate_per_s"))
    return problems


def _local_prefill(document: Mapping[str, Any]) -> list[Problem]:
    """A front may send prompts to the decode pool only where the one engine that runs both pools takes them there."""
    choices, name = _table(document, "disaggregation").get("max_local_prefill_tokens"), document.get("engine")
    engine = ENGINES.get(name) if isinstance(name, str) else None
    if engine is None or not isinstance(choices, list) or 0 in choices or not choices:
        return []
    path, workload = "disaggregation.max_local_prefill_tokens", _table(document, "workload")
    if not engine.decode_pool_prefills:
        return [_problem(path, f"must have 0 among its choices: {prefills_no_prompts(engine)}")]
    cached = {"traffic", "sessions"} & workload.keys() or workload.get("prefix_cache_hit_frac", 0)
    if engine.decode_pool_prefills == "cached" and not cached:
        message = (
            f"must have 0 among its choices where workload.prefix_cache_hit_frac is 0: {engine.title}'s fronts send a "
            "prompt to the decode pool only where some of it is cached there"
        )
        return [_problem(path, message)]
    return []


def _speculative(document: Mapping[str, Any]) -> list[Problem]:
    given, now = _table(document, "speculative"), _table(_table(document, "baseline"), "engine_options")
    if not given and now.get("speculative") is True:
        message = "needs the table speculative, which says how many tokens are drafted and accepted"
        return [_problem("baseline.engine_options.speculative", message)]
    drafted, accepted = given.get("draft_tokens"), given.get("accepted_per_step")
    if not isinstance(drafted, int) or not isinstance(accepted, (int, float)) or 1 <= accepted <= drafted + 1:
        return []
    message = f"must lie between 1 and draft_tokens + 1, got {accepted} and {drafted} draft tokens"
    return [_problem("speculative.accepted_per_step", message)]


def _knobs(search: Mapping[str, Any]) -> list[Problem]:
    names = ("concurrency", "max_num_batched_tokens", "weight_dtype", "kv_dtype")
    lists = {name: len(search[name]) for name in names if isinstance(search.get(name), list)}
    combinations = prod(lists.values())
    if combinations <= MAX_KNOBS:
        return []
    product = " x ".join(f"{count:,} {name}" for name, count in lists.items() if count > 1)
    return [_problem("search", f"must give at most {MAX_KNOBS:,} choices of knobs for one layout, got {product}")]


def _engines(document: Mapping[str, Any]) -> list[Problem]:
    if "engine_version" not in document:
        return []
    if document.get("engine", "any") == "any":
        return [_problem("engine_version", 'must be left out with engine = "any", which is several engines')]
    version = document["engine_version"]
    if not isinstance(version, str) or not version or is_version(version):
        return []
    message = "must be the number of a release, as 0.33.0 or 1.2.0rc6.post2, or the name of a build, as nightly-5b8c30d"
    return [_problem("engine_version", f"{message}, got {shown(version)}")]


def fits_model(arch: Arch, longest_tokens: int) -> list[Problem]:
    """A request must fit the context that the model was made for; engines refuse to start otherwise."""
    limit = arch.max_position_embeddings
    if not limit or longest_tokens <= limit:
        return []
    return [
        _problem(
            "workload",
            f"longest prompt + longest output must be at most the model's max_position_embeddings, got "
            f"{longest_tokens:,} and {limit:,}. Give the model as a table to say otherwise",
        )
    ]


def _problem(path: str, message: str) -> Problem:
    return Problem(path=f"$.{path}", message=message)


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _most(value: Any) -> int | None:
    return _number(value.get("max") if isinstance(value, Mapping) else value)


def _ordered(path: str, value: Any) -> list[Problem]:
    if not isinstance(value, Mapping):
        return []
    low, high = _number(value.get("min")), _number(value.get("max"))
    if low is not None and high is not None and low > high:
        return [_problem(path, f"must have min <= max, got min={low}, max={high}")]
    return []
