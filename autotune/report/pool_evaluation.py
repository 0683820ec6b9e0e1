"""What the pools of a disaggregated plan do and why, for people, from the JSON document of its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autotune.report.text_blocks import Block, text_table
from autotune.report.vocabulary.words import percent
from autotune.scoring.gpu_time import OPERATORS, REST
from autotune.space.pool_plan import ROLES
from autotune.text.numbers import number

NO_PROMPTS_FRAC = 1e-5
"""Share of the prompts up to which a prefill pool is said to get none."""


def pool_blocks(document: Mapping[str, Any]) -> list[Block]:
    """The sections in their order."""
    return [
        _pools(document["pools"], document["max_local_prefill_tokens"]),
        _transfer(document),
        _match(document["rate_match"], document["pools"]),
        *(_time(document["pools"][role], role) for role in ROLES),
    ]


def _pools(pools: Mapping[str, Any], local_tokens: int) -> Block:
    figures: tuple[tuple[str, Callable[[Any], str]], ...] = (
        ("GPUs", lambda p: f"{p['gpus']:,} {p['gpu']}"),
        ("layout", lambda p: p["short"]),
        ("workers", lambda p: f"{p['workers']:,}"),
        ("sequences at once, per rank", lambda p: f"{p['max_num_seqs']:,}"),
        ("sequences at once, whole pool", lambda p: f"{p['slots']:,}"),
        ("token budget, per rank", lambda p: f"{p['max_num_batched_tokens']:,}"),
        *([("prompts prefilled", lambda p: percent(p["prompts_frac"]))] if local_tokens else []),
        ("requests in the pool", lambda p: number(p["in_flight"])),
        ("can do at most, requests/s", lambda p: number(p["requests_per_s"])),
        ("of that in use", lambda p: percent(p["used_frac"])),
        ("within its limits, requests/s", lambda p: number(p["in_time_requests_per_s"])),
        ("GPUs busy", lambda p: percent(p["gpu_util_frac"])),
        ("memory in use", lambda p: percent(p["memory_util_frac"])),
    )
    rows = [(title, *(cell(pools[role]) for role in ROLES)) for title, cell in figures]
    said = f"Prompts with at most {local_tokens:,} tokens to compute are prefilled by the decode pool."
    lines = (said,) if local_tokens else ()
    return Block(key="pools", title="Pools", table=text_table(("", *ROLES), rows), lines=lines)


def _transfer(document: Mapping[str, Any]) -> Block:
    t = document["transfer"]
    rows = [(name.replace("_", " "), f"{s * 1e3:,.1f}") for name, s in document["ttft_parts_s"].items()]
    return Block(
        key="transfer",
        title="First token",
        table=text_table(("part", "ms"), rows),
        lines=(
            (
                f"KV cache: {t['kv_bytes_per_request'] / 1e6:,.1f} MB of a prompt to each receiving rank in "
                f"{t['bytes_s'] * 1e3:,.1f} ms, {percent(t['hidden_frac'])} of it hidden; hand-over "
                f"{t['handover_s'] * 1e3:,.1f} ms; both are {percent(t['ttft_frac'])} of TTFT"
            ),
        ),
    )


def _match(match: Mapping[str, Any], pools: Mapping[str, Any]) -> Block:
    if pools["prefill"]["prompts_frac"] < NO_PROMPTS_FRAC:
        said = "Every prompt is prefilled by the decode pool: the prefill pool has nothing to do."
        return Block(key="rate_match", title="Rate match", lines=(said,))
    rows = [
        (
            role,
            number(match[f"{role}_requests_per_s"]),
            f"{match[f'one_more_{role}_gpu_requests_per_s']:+.4g}",
        )
        for role in ROLES
    ]
    return Block(
        key="rate_match",
        title="Rate match",
        table=text_table(("pool", "within its limits, requests/s", "one more GPU would add, requests/s"), rows),
        lines=(_asked(match, pools), *_balance(match, pools)),
    )


def _balance(match: Mapping[str, Any], pools: Mapping[str, Any]) -> tuple[str, ...]:
    """With how many GPUs the pools would do as much as each other."""
    if match["balanced_prefill_gpus"] is not None:
        return (f"Both would do as much with {number(match['balanced_prefill_gpus'])} GPUs that prefill.",)
    if match["alike"]:
        return ()
    slower, faster = sorted(ROLES, key=lambda role: role != match["slower"])
    there, here = (f"{pools[role]['gpus']:,} {pools[role]['gpu']} that {role}" for role in (slower, faster))
    return (f"{number(match['enough_gpus'])} of the {here} would do as much as the {there}.",)


def _asked(match: Mapping[str, Any], pools: Mapping[str, Any]) -> str:
    """What sets the rate, and what is asked of the pools then."""
    if match["given_requests_per_s"] is None:
        faster = next(role for role in ROLES if role != match["slower"])
        if match["alike"]:
            return "Both pools can do the same."
        idle = percent(match["idle_frac"])
        return f"The {match['slower']} pool sets the rate; {idle} of what the {faster} pool can do is not asked for."
    shares = " and ".join(f"{percent(pools[role]['used_frac'])} of what the {role} pool can do" for role in ROLES)
    rate = number(match["given_requests_per_s"])
    return f"Both pools carry the {rate} requests/s that are given: {shares} is in use."


def _time(pool: Mapping[str, Any], role: str) -> Block:
    whole = sum(pool["gpu_s"].values())
    ordered = sorted(pool["gpu_s"].items(), key=lambda item: (item[0] == REST, -item[1]))
    rows = [(OPERATORS[group], f"{s * 1e3:,.2f}", percent(s / whole)) for group, s in ordered]
    rows.append(("All", f"{whole * 1e3:,.2f}", percent(1.0)))
    return Block(
        key=f"time_{role}",
        title=f"GPU time of a request in the {role} pool",
        table=text_table(("operator", "GPU ms", "share"), rows),
        lines=("Operators are as the formulas say; what measured pools make of them is counted with the waiting.",),
    )
