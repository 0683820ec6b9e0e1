"""What `autotune validate` and `autotune calibrate` show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import exp
from typing import Any

from autotune.engines import engine_title
from autotune.report.text_blocks import Block, Report, text_table
from autotune.report.vocabulary.words import count, percent
from autotune.validation.published import NODE_GPUS, PublishedPoint
from costmodel.calibration.residual import TARGETS
from costmodel.estimate.normal import Z90
from costmodel.measured.learn_profile import CellChange, TargetChange
from costmodel.measured.load_runs import REPORTED

NO_WORSE = 1.02
"""Error with a profile over that without one, above which it is said to be worse: below it is what a digit makes."""
ERRORS = ("runs", "mean", "median", "p90", "bias", "in p10-p90")
PICKS = {
    "expected": "P(meets) x predicted throughput",
    "point": "best predicted to meet the limit",
    "random": "at random",
}


def validation_blocks(document: Mapping[str, Any]) -> list[Block]:
    """Errors by part of the file, then rankings, then how often what is said with a probability is true."""
    return [
        _errors(document, "runs", ("by_gpu", "by_engine", "by_model"), {"tpot": "TPOT", "ttft": "TTFT"}),
        _picks(document["slo_task"]),
        _reliability(
            document["reliability"],
            "Statements that a run meets, or breaks, a TPOT limit between 0.7 and 1.4 times its group's median",
        ),
        _reliability(
            document["reliability_better"],
            "Statements that one run of a group has more throughput per GPU than another",
        ),
        Block(title="Assumed", lines=tuple(document["assumptions"])),
    ]


def pool_run_blocks(document: Mapping[str, Any]) -> list[Block]:
    """Errors of disaggregated runs by part of the file, and what choosing by them loses."""
    parts = ("by_gpu", "by_engine", "by_model", "by_lengths", "by_decode_layout", "by_ttft_note")
    quantities = {"tpot": "TPOT", "ttft": "TTFT", "throughput_per_gpu": "throughput"}
    more = ("Throughput is per GPU of both pools, by Little's law.",)
    return [
        _errors(document, "disaggregated_runs", parts, quantities, more),
        _picks(document["slo_task"]),
        Block(title="Assumed", lines=tuple(document["assumptions"])),
    ]


def _errors(
    document: Mapping[str, Any],
    runs: str,
    parts: Sequence[str],
    quantities: Mapping[str, str],
    more: Sequence[str] = (),
) -> Block:
    """Errors of these quantities (key -> title), in all and by part of the file; `runs` is the key of their number."""
    found = [("all", document["overall"]), *(item for part in parts for item in document[part].items())]
    header = [f"{quantity}\n{title}" for quantity in quantities.values() for title in ERRORS]
    rows = [(name, *(cell for q in quantities for cell in _cells(errors[q]))) for name, errors in found]
    tau = document["kendall_tau"]
    agree = f"throughput per GPU {tau['throughput_per_gpu']:.3f}, TPOT {tau['tpot']:.3f}"
    return Block(
        title=f"{document[runs]:,} {runs.replace('_', ' ')}, {document['coverage']:.1%} predicted",
        table=text_table(("runs of", *header), rows),
        lines=(
            "Errors are |predicted / measured - 1|; bias is the median of predicted / measured, less 1.",
            *more,
            f"Kendall tau within {tau['groups']} groups (gpu, engine, model, precision, isl, osl): {agree}",
        ),
    )


def _picks(scores: Mapping[str, Mapping[str, Any]]) -> Block:
    """What choosing by the predictions loses under a TPOT limit."""
    picks = [
        (
            PICKS[name],
            str(score["groups"]),
            *(f"{score[n]:.1%}" for n in ("strict_regret", "lenient_regret", "over_by_a_tenth")),
        )
        for name, score in scores.items()
    ]
    return Block(
        title="SLO task",
        table=text_table(("picked by", "groups", "regret strict", "regret lenient", "over by > 10 %"), picks),
        lines=(
            "The limit is a group's median measured TPOT. Regret: throughput lost against the best that keeps it.",
            "A broken limit is a total loss (strict), or only when broken by more than 10 % (lenient).",
        ),
    )


def load_blocks(document: Mapping[str, Any]) -> list[Block]:
    """Errors of simulated percentiles, by model."""
    parts = [("all", document["overall"]), *document["by_model"].items()]
    apart = document["overloaded_ids"]
    if apart:
        parts.append(("overloaded", document["overloaded"]))
    header = ("runs of", "runs", *(f"{name.upper()}\n{statistic}" for name, statistic in REPORTED))
    columns = [f"{name}_{statistic}" for name, statistic in REPORTED]

    def row(title: str, found: Mapping[str, Any], figure: str) -> tuple[str, ...]:
        cells = ("–" if found[c] is None else f"{found[c][figure]:.1%}" for c in columns)
        return (title, f"{found['runs']:,}", *cells)

    tables = (
        ("Median error", "median", "|predicted / measured - 1|, median over runs. Percentiles are over requests."),
        ("Mean error", "mape", "|predicted / measured - 1|, mean over runs."),
        (
            "Inside the likely range",
            "inside_likely_range",
            "Share of runs whose measured figure lies in the 80 % likely range of the estimate.",
        ),
    )
    blocks = [
        Block(title=title, table=text_table(header, [row(name, part, figure) for name, part in parts]), lines=(line,))
        for title, figure, line in tables
    ]
    if apart:
        line = f"More requests were under way than twice the seats, in no other row: {', '.join(apart)}."
        blocks.append(Block(title="Overloaded", lines=(line,)))
    return [*blocks, Block(title="Assumed", lines=tuple(document["assumptions"]))]


def _reliability(rows: Sequence[Mapping[str, Any]], title: str) -> Block:
    shown = [
        (
            f"{r['p_from']:.1f} to {r['p_to']:.1f}",
            f"{r['statements']:,}",
            f"{r['mean_p']:.2f}",
            f"{r['share_true']:.2f}",
        )
        for r in rows
    ]
    return Block(title=title, table=text_table(("said with P of", "statements", "mean P", "true"), shown, texts=()))


def _cells(errors: Mapping[str, Any] | None) -> tuple[str, ...]:
    if errors is None:
        return ("0", *("–",) * (len(ERRORS) - 1))
    return (
        f"{errors['runs']:,}",
        *(f"{errors[name]:.1%}" for name in ("mape", "median", "p90")),
        f"{errors['bias']:+.1%}",
        f"{errors['inside_p10_p90']:.0%}",
    )


def published_block(points: Sequence[PublishedPoint], title: str) -> Block:
    """Published deployments beside our figures; nothing was fitted on them."""
    profiled, _, day, _ = points
    share = day.published / (NODE_GPUS * profiled.published)
    rows = [(p.name, f"{p.published:,.0f}", f"{p.predicted:,.0f}", f"{p.ratio:.2f}", p.unit, p.source) for p in points]
    return Block(
        title=title,
        table=text_table(("", "published", "ours", "ratio", "unit", "source"), rows, texts=(0, 4, 5)),
        lines=(
            *(f"{p.name}: {p.assumed}" for p in points),
            "Profiled steps are fully loaded.",
            "The production day is an average over uneven load and routing, of which ours knows what is named above.",
            f"Its prefill nodes did {share:.0%} of what the profiled ones do.",
        ),
    )


def _cell_words(cell: CellChange) -> str:
    """`vLLM, h100_sxm, Llama-3.1-70B, bf16` of the key of a cell, which names a model by its shape."""
    engine, gpu, _, precision = cell.name.split("|")
    return ", ".join([engine_title(engine), gpu, *(model.rpartition("/")[2] for model in cell.models), precision])


def calibration_document(changes: Sequence[CellChange]) -> list[dict[str, Any]]:
    """What a profile changes, cell by cell: of each target with its name in front (`tpot_before`)."""
    return [
        {
            "name": c.name,
            "models": c.models,
            "runs": c.runs,
            **{f"{t}_{key}": value for t in TARGETS for key, value in asdict(getattr(c, t)).items()},
            "left_out": c.left_out,
        }
        for c in changes
    ]


def calibration_report(changes: Sequence[CellChange], profile: str, by_percentiles: int) -> Report:
    """What a profile that was learnt changes; `by_percentiles`: runs whose TTFT percentiles counted."""
    rows = [
        (_cell_words(c) if i == 0 else "", str(c.runs) if i == 0 else "", title, *_change_cells(change))
        for c in changes
        for i, (title, change) in enumerate((("TPOT", c.tpot), ("TTFT", c.ttft)))
    ]
    header = ("servers", "runs", "", "error", "with profile", "interval", "with profile")
    left_out = [text for c in changes for text in c.left_out]
    odd = [text for c in changes for change in (c.tpot, c.ttft) for text in change.apart]
    apart = (
        ("Left out: cannot be what they say", left_out),
        ("Next to nothing learnt from: the other runs contradict them", odd),
    )
    return Report(
        headline=f"{count(len(changes), 'cell')} learnt",
        lines=(
            "Errors are of the runs given, intervals (80 %) of one more run.",
            f'Written to {profile}; in a study: calibration = "{profile}"',
            *(
                [f"TTFT of {count(by_percentiles, 'run')} by percentiles, as there was no mean."]
                if by_percentiles
                else []
            ),
            *([f"{count(len(left_out), 'run')} left out, below."] if left_out else []),
            *(line for c in changes for line in _warnings(c)),
        ),
        blocks=(
            Block(title="Errors", table=text_table(header, rows, texts=(0, 2))),
            *(Block(title=title, lines=tuple(lines)) for title, lines in apart if lines),
        ),
    )


def _change_cells(change: TargetChange) -> tuple[str, ...]:
    """Errors and half widths of the 80 % interval, without and with the profile."""
    widths = (exp(Z90 * sd) - 1.0 for sd in (change.log_sd_before, change.log_sd_after))
    return (percent(change.before, 1), percent(change.after, 1), *(f"±{percent(width, 1)}" for width in widths))


def _warnings(cell: CellChange) -> Iterator[str]:
    """What is to be known of the runs before their profile is used."""
    targets = (("TPOT", cell.tpot), ("TTFT", cell.ttft))
    for title, change in targets:
        if change.surprises:
            yield (
                f"{_cell_words(cell)}: {title} is {change.level:.2g} times as long as was known of such servers, more "
                "than was likely. Predictions follow your runs; look for what differs (options of the server, units)."
            )
    for title, change in targets:
        if change.scatter > 1.0:
            yield (
                f"{_cell_words(cell)}: {title} scatters {change.scatter:.2g} times as much from run to run as that of "
                "measured servers does, and the interval is as wide. Were all runs of one server, set up in one way?"
            )
        if change.after > change.before * NO_WORSE:
            yield (
                f"{_cell_words(cell)}: {title} of the runs given is predicted worse with the profile than without "
                f"({percent(change.after, 1)} off instead of {percent(change.before, 1)}): they do not agree on one "
                "correction, and the profile gains nothing there."
            )
