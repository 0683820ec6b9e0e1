"""What the engines' benchmark clients have in common: what is driven, and how long requests are.

The result file says what the client drove (`facts`), so that `autotune verify` and `autotune calibrate` know it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.engines.command_line import Arg, CommandLine, Variable
from autotune.engines.service import BenchLoad, Service

READY_S = 600
"""Clients wait so long for the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """Where the client sends what: numbers, or variables of a script."""

    base_url: Arg
    result: Arg
    """File that it writes."""
    load: Arg
    """Requests in flight, or per second where the study gives a rate."""
    prompts: Arg
    warmups: Arg
    replicas: str | Variable
    """Replicas that the address reaches."""
    openai_alone: bool = False
    """Whether the address answers OpenAI's API and not the engine's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCommand:
    """One run of a client."""

    argv: tuple[Arg, ...]
    assumptions: tuple[str, ...] = ()


def facts(service: Service, drive: Drive, *, same_lengths: bool) -> list[Arg]:
    """What the result says of itself: `name=value` of the plan, the lengths and the replicas reached."""
    lengths = "fixed" if same_lengths else "uniform"
    return [f"autotune_plan={service.plan}", f"autotune_lengths={lengths}", after("autotune_replicas=", drive.replicas)]


def after(text: str, value: str | Variable) -> Arg:
    """One argument of a text and what follows it."""
    return replace(value, before=text + value.before) if isinstance(value, Variable) else text + value


def shared_prefix(load: BenchLoad) -> tuple[int, tuple[str, ...]]:
    """Tokens that all prompts share, so that the study's share of them is found in the prefix cache; what was cut."""
    mean, wanted = middle(load.isl), shared_tokens(load.isl, load.prefix_hit_frac)
    length = min(wanted, load.isl[0] - 1)
    if length == wanted:
        return length, ()
    cut = (
        f"benchmark: {length / mean:.0%} of prompt tokens shared instead of {load.prefix_hit_frac:.0%}, as no prompt "
        "may be shorter than what all share"
    )
    return length, (cut,)


def shared_tokens(isl: tuple[int, int], prefix_hit_frac: float) -> int:
    """Tokens of a prompt of mean length that are in the prefix cache."""
    return round(prefix_hit_frac * middle(isl))


def middle(span: tuple[int, int]) -> int:
    """Mean of lengths between two, whole tokens."""
    return max(round((span[0] + span[1]) / 2.0), 1)


def drawn_lengths(line: CommandLine, load: BenchLoad, *, as_text: bool) -> list[str]:
    """Lengths from `[length x r, length]`, one r for prompts and outputs (sglang/benchmark/datasets/common.py of
    0.5.23, bench_serving.py of 0.5.9); what had to differ from the study. Prompts go as tokens, or as their text."""
    line.value("dataset_name", "random-ids")
    ratio, outputs, assumed = load.isl[0] / load.isl[1], load.osl[1], []
    if not as_text:
        line.flag("tokenize_prompt")
    if abs(load.osl[0] / load.osl[1] - ratio) > 0.005:
        outputs = round(2.0 * middle(load.osl) / (1.0 + ratio))
        assumed.append(
            f"benchmark: SGLang's client has one range for prompts and outputs: outputs of "
            f"{round(outputs * ratio):,} to {outputs:,} tokens, with the study's mean of {middle(load.osl):,}"
        )
    line.value("random_input_len", load.isl[1]).value("random_output_len", outputs)
    line.value("random_range_ratio", f"{ratio:.6g}")
    return assumed
