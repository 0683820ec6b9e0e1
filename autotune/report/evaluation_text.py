"""An evaluation for people: the same sections on a terminal and in Markdown, from the JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from autotune.report.evaluation_axes import alternatives_block, strategy_block, time_block
from autotune.report.text_blocks import Block, markdown_blocks, print_blocks
from autotune.text.escaping import markdown_text
from autotune.text.numbers import figure, room_words

GIB = 2**30
SHARES = {"of GPU memory", "of time", "probability"}
MOST_STAGES = 8
"""Stages shown one by one; of more, the fullest."""


def print_evaluation(console: Console, document: Mapping[str, Any]) -> None:
    """Everything on a terminal."""
    colour = "green" if document["verdict"] == "PASSED" else "red"
    console.print(f"[bold]{escape(_headline(document))}[/]", highlight=False)
    console.print(
        f"[bold {colour}]{document['verdict']}[/]. {escape(document['conclusion'])}", highlight=False, soft_wrap=True
    )
    print_blocks(console, blocks(document))


def evaluation_markdown(document: Mapping[str, Any]) -> str:
    """Everything as Markdown."""
    conclusion = markdown_text(document["conclusion"])
    out = [f"# {markdown_text(_headline(document))}", "", f"**{document['verdict']}**. {conclusion}"]
    return "\n".join(out + markdown_blocks(blocks(document))) + "\n"


def _headline(document: Mapping[str, Any]) -> str:
    return f"{document['study']}: {document['plan_text']} = {document['plan']}"


def blocks(document: Mapping[str, Any]) -> list[Block]:
    """The sections in their order."""
    out = [_summary(document), _compatibility(document["compatibility"])]
    if document["performance"]:
        out += [_performance(document["performance"], document["checks"]), time_block(document["time"])]
    out += [strategy_block(document["strategy"]), alternatives_block(document["strategy"])]
    if document["memory"]:
        out += [_memory(document), _balance(document["balance"])]
    if document["claims"]:
        out.append(_claims(document["claims"]))
    out.append(Block(title="Conclusion", lines=(document["conclusion"],)))
    out.append(Block(title="Assumed", lines=tuple(document["assumptions"])))
    return out


def _summary(document: Mapping[str, Any]) -> Block:
    rows = [
        (
            c["name"],
            "ok" if c["passed"] else "FAILS",
            _figure(c["value"], c["unit"]),
            _figure(c["limit"], c["unit"]),
            "" if c["margin_frac"] is None else room_words(c["margin_frac"]),
            c["rests_on"] if c["unit"] in ("", *SHARES) else f"{c['unit']}; {c['rests_on']}",
        )
        for c in document["checks"]
    ]
    s = document["summary"]
    lines = [f"what binds: {s['binding']}", *_against_best(s)]
    if document["confidence"] is not None:
        c = document["confidence"]
        lines.append(
            f"P(keeps every limit) {c['p_meets']:.0%}; 80 % intervals: TTFT {c['ttft_p10_s']:.3g} to "
            f"{c['ttft_p90_s']:.3g} s, TPOT {c['tpot_p10_s'] * 1e3:.3g} to {c['tpot_p90_s'] * 1e3:.3g} ms, "
            f"{figure(c['requests_per_s_p10'])} to {figure(c['requests_per_s_p90'])} requests/s"
        )
    header = ("check", "", "value", "limit", "room", "of what")
    return Block(title="Summary", header=header, rows=rows, lines=tuple(lines), texts=(0, 1, 5))


def _against_best(s: Mapping[str, Any]) -> list[str]:
    """The distance to the best plan, by the metric and by what ranks plans."""
    if s["best_plan"] is None:
        return ["the study has no plan that keeps every limit"]
    out = f"best plan of the study: {s['best_plan']}, {s['metric']} {figure(s['best_value'])}"
    if s["value"] is not None:
        out += f" (this plan: {figure(s['value'])})"
    if s["loses_against_best_frac"] is None:
        return [f"{out}; this plan has no rank: it breaks a limit"]
    if s["loses_against_best_frac"] <= 0.0:
        return [f"{out}; none is ahead of this plan"]
    behind = f"{s['loses_against_best_frac']:.1%} behind by what ranks plans (the metric, the probability of keeping"
    better = f"better by the metric with probability {s['p_better_than_best']:.0%}"
    return [f"{out}; this plan is {behind} the limits counted), and {better}"]


def _compatibility(part: Mapping[str, Any]) -> Block:
    rows = [
        (a["axis"], str(a["value"]), str(a.get("ranks_together", "")), a["tier"], a["maps_to"]) for a in part["axes"]
    ]
    nodes = "one node" if part["nodes"] == 1 else f"each of {part['nodes']:,} nodes"
    where = f"{part['ranks_per_node']} ranks on {nodes}"
    layers = ", ".join(str(n) for n in part["stage_layers"])
    lines = [
        f"GPUs: {part['gpus_used']:,} of {part['gpus']:,}, {where}; layers of the stages: {layers}",
        f"attention heads per rank: {part['heads_per_rank']:g}; {_kv_heads(part)}",
    ]
    experts = part.get("expert_modules")
    if experts is not None:
        lines.append(
            f"expert modules: {experts['distinct']:,} distinct, {experts['instances']:,} instances in all replicas, "
            f"{experts['instances_per_gpu']:g} per GPU, {experts['per_gpu_per_layer']:g} per GPU and layer"
        )
    for engine in part["engines"]:
        words = "launches it" if engine["launches"] else f"cannot: {'; '.join(engine['forbidden_by'])}"
        lines.append(f"{engine['engine']}: {words}")
    header = ("axis", "value", "ranks together", "links", "is")
    return Block(title="Compatibility", header=header, rows=rows, lines=tuple(lines), texts=(0, 3, 4))


def _kv_heads(part: Mapping[str, Any]) -> str:
    copies = part["kv_copies"]
    if part["kv_is_latent"]:
        return f"KV: one latent for all heads (MLA), the same on {copies:g} ranks of a TP group"
    each = "" if copies == 1.0 else f", each on {copies:g} ranks of a TP group"
    return f"KV heads per rank: {part['kv_heads_per_rank']:g}{each}"


def _performance(part: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> Block:
    load, full, target = (part[n] for n in ("tokens_per_ms", "tokens_per_ms_at_saturation", "tokens_per_ms_target"))
    rows = [
        (
            words,
            figure(load[name]),
            figure(full[name]),
            "" if target is None else figure(target[name]),
        )
        for name, words in (
            ("per_gpu_of_a_stage", "one GPU of a stage"),
            ("per_pipeline", f"one pipeline (x {part['gpus_of_a_stage']})"),
            ("in_all", f"in all (x {part['replicas']} replicas)"),
        )
    ]
    ttft = "" if part["ttft_limit_s"] is None else f" (limit {part['ttft_limit_s']:g} s)"
    tpot = "" if part["tpot_limit_s"] is None else f" (limit {part['tpot_limit_s'] * 1e3:g} ms)"
    at_load = f"{part['requests_in_flight']:,} requests in flight, {figure(part['requests_per_s'])} requests/s"
    at_most = f"{full['requests_in_flight']:,} in flight, chunks of {full['max_num_batched_tokens']:,} tokens"
    full_latency = f"TTFT {full['ttft_longest_s']:.3g} s, TPOT {full['tpot_s'] * 1e3:.3g} ms"
    of_peak = f"{part['compute_util_frac']:.1%}, of peak memory bandwidth {part['bandwidth_util_frac']:.1%}"
    utilised = f"GPU busy {part['gpu_util_frac']:.0%} of the time; of peak FLOP/s {of_peak}"
    held = {c["name"]: c["value"] for c in checks}
    fits = held["kv_capacity"] > 0.0 and held["memory_util_frac"] <= 1.0
    lines = (
        *(() if fits else ("it does not fit its GPUs' memory: these are figures of what could not run",)),
        f"at the study's load: {at_load}; at saturation: {at_most}, {full_latency}",
        f"TTFT at the longest prompt {part['ttft_longest_s']:.3g} s{ttft}, TPOT {part['tpot_s'] * 1e3:.3g} ms{tpot}",
        f"{utilised}, of memory {part['memory_util_frac']:.1%}",
    )
    header = ("tokens/ms through", "at the load", "at saturation", "target")
    return Block(title="Performance", header=header, rows=rows, lines=lines)


def _memory(document: Mapping[str, Any]) -> Block:
    stages: dict[int, dict[str, float]] = {}
    for row in document["memory"]:
        stages.setdefault(row["stage"], {})[row["kind"]] = row["bytes"] / GIB
    order = (
        list(stages) if len(stages) <= MOST_STAGES else sorted(stages, key=lambda s: stages[s]["free"])[:MOST_STAGES]
    )
    first = ("attention", "dense_ffn", "experts", "shared_experts", "router", "norms", "embedding", "lm_head")
    found = dict.fromkeys(kind for held in stages.values() for kind in held)
    kinds = [*(k for k in first if k in found), *(k for k in found if k not in first)]
    rows = [(kind, *(_gib(stages[s].get(kind, 0.0)) for s in order)) for kind in kinds]
    rows.append(("all", *(_gib(sum(stages[s].values())) for s in order)))
    c = document["capacity"]
    context = c["model_context_tokens"]
    longest = "any" if c["longest_prompt_tokens"] is None else f"{c['longest_prompt_tokens']:,} tokens"
    lines = [
        f"largest batch that fits: {c['largest_batch_requests']:,.0f} requests ({c['requests_in_flight']:,} in flight)",
        f"longest prompt that fits, by memory alone: {longest} (the study's: {c['longest_prompt_of_study_tokens']:,}"
        + ("" if context is None else f"; the model itself takes {context:,}")
        + ")",
        "every rank of a stage holds the same; the cache is that of the mean number of running requests",
    ]
    if len(order) < len(stages):
        lines.append(f"the {len(order)} fullest of {len(stages)} stages")
    header = ("GiB on each rank", *(f"stage {s}" for s in order))
    return Block(title="Memory", header=header, rows=rows, lines=tuple(lines))


def _gib(value: float) -> str:
    """Two decimals; `<0.01` for what is there all the same."""
    return f"{value:,.2f}" if value == 0.0 or abs(value) >= 0.005 else "<0.01"


def _balance(part: Mapping[str, Any]) -> Block:
    rows = [
        (
            str(s["stage"]),
            str(s["layers"]),
            f"{s['params'] / 1e9:,.2f}",
            f"{s['prefill_step_s'] * 1e3:.2f}",
            f"{s['decode_step_s'] * 1e3:.2f}",
        )
        for s in part["stages"]
    ]
    over = part["slowest_over_mean_stage"]
    lines = [f"slowest over mean stage: prefill {over['prefill']:.3f}, decode {over['decode']:.3f}"]
    if "token_imbalance" in part:
        lines.append(
            f"experts per GPU and layer: {part['experts_per_gpu_per_layer']:g}; expert skew {part['expert_skew']:g}"
        )
        for found in part["token_imbalance"]:
            own = " (the plan)" if found["is_the_plans"] else ""
            lines.append(
                f"with {found['redundant_experts']} redundant experts{own} the fullest expert rank gets "
                f"{found['prefill_fullest_over_mean_rank']:.2f} times the mean's tokens in prefill, "
                f"{found['decode_fullest_over_mean_rank']:.2f} in decode"
            )
        if part["expert_skew"] == 0.0:
            lines.append(
                "routing is taken as balanced (skew 0): what is uneven is chance among few tokens, which redundant "
                "experts do not even out; see workload.expert_skew"
            )
    header = ("stage", "layers", "B parameters", "prefill ms", "decode ms")
    return Block(title="Load balance", header=header, rows=rows, lines=tuple(lines))


def _claims(claims: Sequence[Mapping[str, Any]]) -> Block:
    rows = [(c["claim"], c["status"], _plain(c["claimed"]), _plain(c["computed"]), c["reason"]) for c in claims]
    counts = {s: sum(c["status"] == s for c in claims) for s in ("confirmed", "refuted", "undecidable")}
    header = ("claim", "status", "claimed", "computed", "because")
    return Block(
        title="Claims",
        header=header,
        rows=rows,
        lines=(", ".join(f"{n} {status}" for status, n in counts.items()),),
        texts=(0, 1, 4),
    )


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if unit in SHARES else figure(value)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return ("no", "yes")[value] if isinstance(value, bool) else figure(value)
