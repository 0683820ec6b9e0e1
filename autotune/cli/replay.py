"""What re-tuning would have done on recorded traffic: `autotune retune replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotune.cli.options import QUESTION, READING, SHOWN, NewFile, Question

if TYPE_CHECKING:
    from autotune.traffic.options import ReadOptions

MIN_LOAD, MAX_LOAD = 0.01, 10.0


@click.command()
@QUESTION
@click.option(
    "--traffic", required=True, multiple=True, metavar="FILE", help="Request log; several follow each other in order."
)
@READING
@click.option("--step", default="10m", show_default=True, metavar="TIME", help="How often is decided.")
@click.option("--window", default="30m", show_default=True, metavar="TIME", help="How far back each decision looks.")
@click.option(
    "--load",
    default="0.9",
    show_default=True,
    metavar="SHARE|as-is",
    help="Mean load of each log, as a share of what the best plan takes of it within the limits; as-is: as it came, "
    "each request simulated.",
)
@click.option(
    "--begin",
    default="baseline",
    show_default=True,
    type=click.Choice(["best", "baseline"]),
    help="What runs at first: the study's baseline, or the best plan for the first step.",
)
@click.option("--plot", type=NewFile(), help="SVG file to write.")
@click.option("--markdown", type=NewFile(), help="Markdown file to write the tables to.")
@SHOWN
def replay(
    question: Question,
    traffic: tuple[str, ...],
    reading: ReadOptions,
    step: str,
    window: str,
    load: str,
    begin: str,
    plot: str | None,
    markdown: str | None,
    as_json: bool,
) -> None:
    """Walk recorded traffic and report what retune decides, beside never and always switching, and an oracle.

    All begin with the same plan, the baseline unless --begin best. The oracle knows each step and switches for nothing.

    \b
    autotune retune replay studies/qwen3-235b-64xh100.toml --traffic conversation.csv --traffic code.csv --step 10m
    """
    from pathlib import Path

    from autotune.cli.output import progress_bar
    from autotune.cli.times import duration_s
    from autotune.files import write_file
    from autotune.report.files import to_json
    from autotune.report.replay import replay_blocks, replay_document, replay_markdown
    from autotune.report.svg.replay_plot import replay_svg
    from autotune.report.terminal import print_blocks, stdout_console
    from autotune.retuning.replay import replay as walk
    from autotune.traffic.read import read_traffic
    from costmodel.errors import InputError

    step_s, window_s = duration_s(step, "--step"), duration_s(window, "--window")
    if window_s < step_s:
        raise InputError.single("--window", f"must be at least a step, {step_s:g} s, got {window_s:g} s")
    load_frac = _load_frac(load)
    loaded = question.load()
    logs = [read_traffic(source, options=reading) for source in traffic]
    quiet = as_json
    with progress_bar(quiet=quiet) as report:
        found = walk(
            loaded,
            logs,
            step_s=step_s,
            window_s=window_s,
            load_frac=load_frac,
            from_baseline=begin == "baseline",
            progress=report,
        )
    document = replay_document(found)
    if plot is not None:
        write_file(Path(plot), replay_svg(document))
    if markdown is not None:
        write_file(Path(markdown), replay_markdown(document))
    if quiet:
        click.echo(to_json(document), nl=False)
    else:
        print_blocks(stdout_console(), replay_blocks(document))


def _load_frac(text: str) -> float | None:
    from costmodel.errors import InputError

    if text == "as-is":
        return None
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not MIN_LOAD <= share <= MAX_LOAD:
        raise InputError.single("--load", f"must be as-is, or a share from {MIN_LOAD:g} to {MAX_LOAD:g}, got {text!r}")
    return share
